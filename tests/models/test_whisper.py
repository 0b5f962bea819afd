import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import assert_trees_equal, noisy_parameters, normal
from transformer.errors import ConfigError
from transformer.models.whisper import Whisper
from transformer.nn.compute import Compute
from transformer.nn.layouts import stacked
from transformer.ops.masks import at_positions, causal

SCANNED = Compute(scan_layers=True)
# Layers, width, heads, bands, tokens and the number of parameters of what is published.
PUBLISHED = {
    "tiny.en": (4, 384, 6, 80, 51_864, 37_760_256),
    "tiny": (4, 384, 6, 80, 51_865, 37_760_640),
    "base": (6, 512, 8, 80, 51_865, 72_593_920),
    "small": (12, 768, 12, 80, 51_865, 241_734_912),
    "medium": (24, 1024, 16, 80, 51_865, 763_857_920),
    "large-v2": (32, 1280, 20, 80, 51_865, 1_543_304_960),
    "large-v3": (32, 1280, 20, 128, 51_866, 1_543_490_560),
}
TINY = Whisper(
    vocab_size=11,
    num_encoder_layers=2,
    num_decoder_layers=2,
    num_heads=2,
    width=16,
    feed_forward_width=24,
    num_features=5,
    source_context=10,
    context=9,
)
FRAMES = normal(np.random.default_rng(0), 3, 20, 5)
TARGET = jnp.asarray(np.random.default_rng(1).integers(0, 11, (3, 8)), jnp.int32)


@functools.cache
def params():
    return noisy_parameters(TINY, FRAMES, TARGET)


@functools.partial(jax.jit, static_argnames=("model", "method"))
def run(model, variables, *inputs, method=None, **layout):
    return model.apply({"params": variables}, *inputs, method=method, **layout)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_of_the_published_sizes(name):
    layers, width, heads, bands, tokens, count = PUBLISHED[name]
    model = Whisper(
        vocab_size=tokens,
        num_encoder_layers=layers,
        num_decoder_layers=layers,
        num_heads=heads,
        width=width,
        feed_forward_width=4 * width,
        num_features=bands,
        compute=SCANNED,
    )
    inputs = jnp.zeros((1, 4, bands)), jnp.zeros((1, 1), int)
    shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == count


def test_scanned_is_unrolled():
    found = run(TINY.clone(compute=SCANNED), stacked(params()), FRAMES, TARGET)
    expected = run(TINY, params(), FRAMES, TARGET)
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_token_by_token_is_all_at_once():
    """With a cache that keeps the keys and values of the recording."""
    memory = run(TINY, params(), FRAMES, method="encode")
    expected = run(TINY, params(), memory, TARGET, method="written")
    cache = TINY.empty_cache(3, 9)
    for place in range(8):
        positions = jnp.full((3, 1), place)
        found, cache = run(
            TINY,
            params(),
            TARGET[:, place : place + 1],
            memory if place == 0 else None,
            mask=causal() & at_positions(positions),
            memory_mask=None,
            positions=positions,
            cache=cache,
            method="decode",
        )
        np.testing.assert_allclose(found[:, 0], expected[:, place], atol=1e-5)


def test_padding_changes_nothing():
    lengths = np.asarray([20, 13, 6])
    valid = (np.arange(20) < lengths[:, None]).astype(np.int32)
    everywhere = np.ones((3, 8), np.int32)
    layout = {"source_segments": valid, "target_segments": everywhere}
    found = run(TINY, params(), FRAMES, TARGET, **layout)
    other = jnp.where(valid[..., None] > 0, FRAMES, 7.0)
    np.testing.assert_array_equal(run(TINY, params(), other, TARGET, **layout), found)
    alone = run(TINY, params(), FRAMES[2:, :6], TARGET[2:])
    np.testing.assert_allclose(found[2:], alone, atol=1e-5)


def test_positions_of_the_encoder_are_constants():
    start = nn.meta.unbox(jax.jit(TINY.init)(jax.random.key(0), FRAMES, TARGET)["params"])
    table = start["encoder_positions"]
    # Wavelengths from 2 pi to 10,000 x 2 pi; sines stand before cosines.
    np.testing.assert_allclose(table[:, 0], np.sin(np.arange(10)), atol=1e-6)
    np.testing.assert_allclose(table[:, 8], np.cos(np.arange(10)), atol=1e-6)
    np.testing.assert_allclose(table[:, 7], np.sin(np.arange(10) / 10_000), rtol=1e-5)

    @jax.jit
    @jax.grad
    def gradients(params):
        return jnp.sum(jnp.square(TINY.apply({"params": params}, FRAMES, TARGET)))

    found = gradients(params())
    assert_trees_equal(found.pop("encoder_positions"), np.zeros((10, 16), np.float32))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(found))


def test_what_makes_no_model():
    with pytest.raises(ConfigError, match="must be even"):
        TINY.clone(width=15, num_heads=3).check()
    with pytest.raises(ConfigError, match="num_heads"):
        TINY.clone(num_heads=3).check()
    with pytest.raises(ConfigError, match="22 frames, and the model reads 20"):
        jax.eval_shape(TINY.init, jax.random.key(0), jnp.zeros((1, 22, 5)), TARGET[:1])
