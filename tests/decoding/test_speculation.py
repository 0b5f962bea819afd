"""Guesses change the time that a text takes, not the text."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import noisy_parameters
from tests.decoding.test_sample import GREEDY, WARM, tokens_of
from transformer.decoding import speculation
from transformer.decoding.speculation import Draft, Lookup, Speculative
from transformer.models.gemma import Gemma
from transformer.models.gpt import GPT
from transformer.ops.repetition import continued_as_before

PROMPTS = [np.array([1, 2, 3]), np.array([4, 5, 6, 7, 8, 4, 5, 6, 7, 8, 4]), np.array([9])]
SIZES = {"vocab_size": 11, "num_layers": 1, "num_heads": 2, "width": 16, "feed_forward_width": 16}


@pytest.fixture(scope="module")
def smaller():
    model = GPT(**SIZES, context=16)
    return model, noisy_parameters(model, jnp.zeros((1, 16), int))


@pytest.mark.parametrize(
    ("kind", "sampling"),
    [("lookup", GREEDY), ("lookup", WARM), ("draft", WARM)],
    ids=["lookup, greedy", "lookup", "draft"],
)
def test_the_same_text_also_past_the_context(gpt, gpt_params, smaller, kind, sampling):
    guesses = Lookup(3, 2) if kind == "lookup" else Draft(smaller[0], 3)
    given = {} if kind == "lookup" else smaller[1]
    writer = Speculative(gpt, gpt_params, sampling, guesses, given)
    expected = tokens_of(gpt, gpt_params, PROMPTS, 40, sampling, chunk=7)
    found = tokens_of(gpt, gpt_params, PROMPTS, 40, sampling, chunk=7, writer=writer)
    np.testing.assert_array_equal(found, expected)
    assert writer.tokens == 40
    assert 10 <= writer.passes <= 40


def test_windows_and_scanned_layers():
    """Gemma's layers by turns see a window, and its cache has a leading axis of layers."""
    fields = {**SIZES, "num_layers": 2, "context": 32, "window": 4, "num_kv_heads": 1}
    model = Gemma(**fields)
    params = noisy_parameters(model, jnp.zeros((1, 8), int))
    writer = Speculative(model, params, WARM, Lookup(4, 2))
    expected = tokens_of(model, params, PROMPTS, 20, WARM)
    np.testing.assert_array_equal(
        tokens_of(model, params, PROMPTS, 20, WARM, writer=writer), expected
    )


def test_steady_state_compiles_nothing(gpt, gpt_params):
    def write(prompt, count):
        writer = Speculative(gpt, gpt_params, GREEDY, Lookup(2, 2))
        tokens_of(gpt, gpt_params, [prompt], count, writer=writer)

    write(np.array([1, 2]), 9)
    before = speculation._read._cache_size(), speculation._go_on._cache_size()
    write(np.array([3, 2, 5]), 12)
    assert (speculation._read._cache_size(), speculation._go_on._cache_size()) == before


@pytest.mark.parametrize(
    ("text", "guess"),
    [
        ("abcdXabcdYbc", "dYbcd"),  # The later of two places where "bc" stood.
        ("abcXbcYabc", "XbcYa"),  # Three alike count more than two.
        ("aaaa", "aaaaa"),
        ("xyxyx", "yxyxy"),
        ("q", "qqqqq"),
    ],
)
def test_the_guess_by_hand(text, guess):
    tokens = jnp.array([*map(ord, text), *[0] * (20 - len(text))])
    found = continued_as_before(tokens, jnp.asarray(len(text)), longest=3, count=5)
    assert "".join(map(chr, found)) == guess
