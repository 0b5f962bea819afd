"""Caches that grow and rows one after another: outputs are those of one cache and all at once."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.common import noisy_parameters, normal
from tests.decoding.test_beam import END, LENGTHS, RELATIVE, SOURCES, L, V, params_of
from transformer.decoding import beam, prompted, rows
from transformer.decoding.growing import rooms
from transformer.models.whisper import Whisper
from transformer.ops.transcript_rules import TranscriptRules

WHISPER = Whisper(
    vocab_size=11,
    num_encoder_layers=1,
    num_decoder_layers=2,
    num_heads=2,
    width=16,
    feed_forward_width=24,
    num_features=5,
    source_context=10,
    context=12,
)
FRAMES = normal(np.random.default_rng(0), 3, 20, 5)
PROMPTS = prompted.Prompts(
    np.array([[0, 3, 4], [0, 0, 5], [2, 3, 4]], np.int32), np.array([2, 1, 3], np.int32)
)


def test_rooms():
    assert rooms(0, least=32) == (0,)
    assert rooms(32, least=32) == (32,)
    assert rooms(82, least=32) == (32, 82)
    assert rooms(200, least=32) == (32, 128, 200)


def test_a_beam_search_whose_cache_grows_is_the_same(monkeypatch):
    # Its biases depend on where keys stand.
    model = RELATIVE
    begin = model.begin_token()
    options = {"max_length": L, "beam_size": 3, "alpha": 0.6, "num_return": 3, "begin": begin}
    settings = beam.Settings(END, num_tokens=V, **options)
    args = params_of(model), SOURCES, LENGTHS, jnp.array([L, L - 1, L])
    whole = beam.beam_search(model, *args, settings)
    monkeypatch.setattr(beam, "_LEAST_ROOM", 1)
    # A function of its own, so that nothing is found that was compiled before.
    grown = jax.jit(lambda *args: beam.beam_search.__wrapped__(model, *args, settings))(*args)
    assert np.max(whole.lengths) > 2
    for one, other in zip(grown, whole, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_windows_alone_and_with_a_cache_that_grows(monkeypatch):
    params = noisy_parameters(WHISPER, FRAMES, PROMPTS.tokens)
    settings = prompted.Settings(end=1, max_length=9, rules=TranscriptRules(suppressed=(1,)))
    limits, keys = jnp.array([9, 7, 9]), jax.random.split(jax.random.key(0), 3)

    def written(least, long):
        monkeypatch.setattr(prompted, "_LEAST_ROOM", least)
        monkeypatch.setattr(rows, "LONG", long)

        def run(params, frames, prompts):
            memory = rows.encoded(WHISPER, params, frames)
            inputs = memory, prompts, limits, jnp.ones(()), keys
            return memory, prompted.write.__wrapped__(WHISPER, params, *inputs, settings)

        return jax.jit(run)(params, FRAMES, PROMPTS)

    memory, whole = written(128, 1024)
    alone, grown = written(2, 10)
    assert np.abs(memory).max() > 0.5
    np.testing.assert_allclose(alone, memory, atol=1e-5)
    assert whole.lengths.tolist() == [9, 7, 9]
    assert len(set(map(tuple, whole.tokens.tolist()))) == 3
    np.testing.assert_array_equal(grown.tokens, whole.tokens)
    np.testing.assert_allclose(grown.log_probs, whole.log_probs, atol=1e-5)
    np.testing.assert_allclose(grown.watched, whole.watched, atol=1e-6)
