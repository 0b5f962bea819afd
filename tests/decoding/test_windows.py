"""Layers that see a window keep a window: texts and scores are those of the whole cache."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import assert_trees_equal, noisy_parameters
from tests.decoding.test_sample import tokens_of
from transformer.decoding.preparing import unrolled
from transformer.decoding.speculation import Draft, Speculative
from transformer.models.gemma import Gemma
from transformer.models.llama import Llama
from transformer.nn.attention import Attention
from transformer.nn.caches import KVCache, RollingCache
from transformer.nn.compute import Compute, computing
from transformer.nn.layouts import stacked
from transformer.ops.logits import Sampling
from transformer.ops.masks import at_positions, causal, padding
from transformer.ops.positions import rotary

CONTEXT, WINDOW = 32, 4
SIZES = {"vocab_size": 11, "num_layers": 2, "num_heads": 2, "width": 16, "context": CONTEXT}
SIZES |= {"num_kv_heads": 1, "feed_forward_width": 16, "window": WINDOW}
MODELS = {
    "mistral, scanned": Llama(**SIZES, compute=Compute(scan_layers=True)),
    "gemma": Gemma(**SIZES, global_every=2),
}
PROMPTS = [np.array([1, 2, 3]), np.array([4, 5, 6, 7, 8, 4, 5, 6, 7, 8, 4]), np.array([9])]


@functools.cache
def parameters(name):
    return noisy_parameters(MODELS[name], jnp.zeros((1, 8), int))


@pytest.mark.parametrize("steps_back", [0, 3])
def test_attention_is_that_of_the_whole_cache(steps_back):
    """Prompts with padding, then calls of several tokens that go back and are corrected."""
    rng = np.random.default_rng(steps_back)
    layer = Attention(num_heads=2, num_kv_heads=1, position=rotary, window=WINDOW)
    x = jnp.asarray(rng.normal(size=(2, 20, 8)), jnp.float32)
    params = noisy_parameters(layer, x)
    whole = KVCache.empty(2, 20, 1, 4, "float32")
    window = RollingCache.empty(2, WINDOW, 1, 4, "float32", steps_back=steps_back)
    assert window.key.shape == (2, 1, WINDOW + steps_back, 4)

    @jax.jit
    def step(states, start, count, cache):
        places = jnp.arange(states.shape[1])
        positions = start[:, None] + places
        slots = jnp.where(places < count[:, None], positions, -1)
        mask = causal() & at_positions(positions)
        options = {"mask": mask, "positions": positions, "slots": slots}
        return layer.apply({"params": params}, states, **options, cache=cache)

    start, back = jnp.array([0, 0]), steps_back and 2
    for width, first in ((9, 2), (1, 1), (3, 3), (1, 1), (3, 3)):
        counts = jnp.array([first, width])
        rows = jnp.arange(2)[:, None]
        states = x[rows, jnp.minimum(start[:, None] + jnp.arange(width), 19)]
        if width == 3 and steps_back:
            # The last tokens are guesses, written and then replaced.
            wrong = states.at[:, 3 - back :].add(1.0)
            (_, whole), (_, window) = (step(wrong, start, counts, c) for c in (whole, window))
            counts -= back
        caches = whole, window
        (expected, whole), (found, window) = (step(states, start, counts, c) for c in caches)
        for row, count in enumerate(counts):
            np.testing.assert_allclose(found[row, :count], expected[row, :count], atol=1e-6)
        start = start + counts


@pytest.mark.parametrize("name", MODELS)
def test_a_cache_has_the_slots_of_the_window(name):
    cache = jax.eval_shape(lambda: MODELS[name].empty_cache(2, CONTEXT, steps_back=3))
    slots = {leaf.shape[-2] for leaf in jax.tree.leaves(cache)}
    assert slots == ({WINDOW + 3, CONTEXT} if name == "gemma" else {WINDOW + 3})
    short = jax.eval_shape(lambda: MODELS[name].empty_cache(2, WINDOW - 1))
    assert {leaf.shape[-2] for leaf in jax.tree.leaves(short)} == {WINDOW - 1}


def test_texts_past_the_window_and_past_the_context():
    """Each next token is that of a pass without any cache."""
    model, params = MODELS["gemma"], parameters("gemma")
    score = jax.jit(functools.partial(model.apply, {"params": params}))
    found = tokens_of(model, params, PROMPTS, 40, chunk=40)
    for prompt, row in zip(PROMPTS, found, strict=True):
        text, start = [*prompt, *row], 0
        for place in range(len(prompt), len(text)):
            if place - start >= CONTEXT:
                start = place - CONTEXT // 2
            padded = np.zeros((1, CONTEXT), np.int32)
            padded[0, : place - start] = text[start:place]
            assert score(jnp.asarray(padded))[0][0, place - start - 1].argmax() == text[place]


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_those_without_a_cache(name):
    model, params = MODELS[name], parameters(name)
    tokens = jnp.asarray(np.random.default_rng(1).integers(0, 11, (2, 24)))
    step = jax.jit(functools.partial(model.apply, {"params": params}))
    expected, _ = step(tokens)
    cache, start = model.empty_cache(2, CONTEXT), 0
    for count in (12, *[1] * 12):
        positions = jnp.broadcast_to(jnp.arange(start, start + count), (2, count))
        scores, cache = step(tokens[:, start : start + count], positions=positions, cache=cache)
        np.testing.assert_allclose(scores, expected[:, start : start + count], atol=1e-5)
        start += count


def test_guesses_leave_the_text_as_it_is():
    """A draft like the model is always right, if its own window is, although it goes back."""
    model, params = MODELS["gemma"], parameters("gemma")
    writer = Speculative(model, params, Sampling(temperature=0.0), Draft(model, 3), params)
    expected = tokens_of(model, params, PROMPTS, 40, chunk=40)
    found = tokens_of(model, params, PROMPTS, 40, chunk=40, writer=writer)
    np.testing.assert_array_equal(found, expected)
    # Four tokens a pass: for 21 of them, then, as contexts end, for 8, 2, 6 and 3.
    assert writer.passes == 12


def test_scanned_layers_by_turns_are_unrolled_to_write():
    scanned, params = computing(MODELS["gemma"], scan_layers=True), parameters("gemma")
    model, found = unrolled(scanned, stacked(params))
    assert model == MODELS["gemma"]
    assert_trees_equal(found, dict(params))
    alike = MODELS["mistral, scanned"]
    assert unrolled(alike, params) == (alike, params)


def test_a_mask_by_the_index_of_keys_does_not_fit_a_window():
    mask = padding(jnp.ones((1, 3), bool))
    assert mask.with_keys_at(None) is mask
    with pytest.raises(ValueError, match="index of keys"):
        mask.with_keys_at(jnp.zeros((1, 3), int))
