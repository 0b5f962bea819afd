import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import noisy_parameters
from transformer.errors import ConfigError
from transformer.models.gemma import Gemma
from transformer.nn.compute import Compute
from transformer.nn.layouts import stacked, unstacked
from transformer.training.sections import build, section

TINY = {
    "vocab_size": 13,
    "num_layers": 3,
    "num_heads": 4,
    "num_kv_heads": 2,
    "width": 16,
    "feed_forward_width": 24,
    "context": 16,
    "window": 3,
    "global_every": 2,
    "attention_cap": 2.0,
    "logit_cap": 1.5,
}
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 13, (2, 10)))


@functools.partial(jax.jit, static_argnums=0)
def logits(model, params, tokens):
    return model.apply({"params": params}, tokens)[0]


@pytest.fixture(scope="module")
def params():
    return noisy_parameters(Gemma(**TINY), TOKENS)


def test_scanned_layers_are_unrolled_ones(params):
    """Though every second of them sees everything and turns otherwise."""
    expected = logits(Gemma(**TINY), params, TOKENS)
    found = logits(Gemma(**TINY, compute=Compute(scan_layers=True)), stacked(params), TOKENS)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    same = jax.tree.map(np.array_equal, unstacked(stacked(params)), dict(params))
    assert all(jax.tree.leaves(same))


@pytest.mark.parametrize("scanned", [False, True])
def test_cached_is_full(params, scanned):
    model = Gemma(**TINY, compute=Compute(scan_layers=scanned))
    params = stacked(params) if scanned else unstacked(params)
    expected = logits(model, params, TOKENS)

    @jax.jit
    def step(cache, tokens, positions):
        return model.apply({"params": params}, tokens, positions=positions, cache=cache)

    cache = model.empty_cache(2, 12)
    for start, end in ((0, 4), (4, 5), (5, 6), (6, 10)):
        positions = jnp.broadcast_to(jnp.arange(start, end), (2, end - start))
        found, cache = step(cache, TOKENS[:, start:end], positions)
        np.testing.assert_allclose(found, expected[:, start:end], atol=1e-5)


def test_local_layers_see_their_window(params):
    """Of three layers one is global: without it, what is far away changes nothing."""
    far = TOKENS.at[:, 0].set((TOKENS[:, 0] + 1) % 13)
    whole = Gemma(**TINY)
    assert not np.allclose(logits(whole, params, TOKENS)[:, -1], logits(whole, params, far)[:, -1])
    local = whole.clone(global_every=4)
    found, changed = logits(local, params, TOKENS), logits(local, params, far)
    # Three layers of three tokens each: seven tokens are seen.
    np.testing.assert_array_equal(found[:, 7:], changed[:, 7:])
    assert not np.allclose(found[:, 6], changed[:, 6])


def test_scores_are_capped(params):
    assert 0.1 < np.abs(logits(Gemma(**TINY), params, TOKENS)).max() < 1.5


def test_normalisations_begin_as_ones():
    model = Gemma(**TINY)
    made = nn.meta.unbox(jax.jit(model.init)(jax.random.key(0), TOKENS)["params"])
    assert not np.any(made["final_norm"]["scale"])
    assert set(made["blocks"]["layer_0"]) == {
        "attention",
        "attention_norm",
        "attention_output_norm",
        "feed_forward",
        "feed_forward_norm",
        "feed_forward_output_norm",
    }


# The sizes of the published models, in parameters.
@pytest.mark.parametrize(
    ("config", "count"),
    [
        (
            {
                "vocab_size": 256_000,
                "num_layers": 26,
                "num_heads": 8,
                "num_kv_heads": 4,
                "head_dim": 256,
                "width": 2304,
                "feed_forward_width": 9216,
                "head_norm": False,
            },
            2_614_341_888,
        ),
        (
            {
                "vocab_size": 262_144,
                "num_layers": 26,
                "num_heads": 4,
                "num_kv_heads": 1,
                "head_dim": 256,
                "width": 1152,
                "feed_forward_width": 6912,
            },
            999_885_952,
        ),
    ],
    ids=["gemma2-2b", "gemma3-1b"],
)
def test_published_sizes(config, count):
    model = Gemma(**config, compute=Compute(scan_layers=True))
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 2), int))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("window", 0),
        ("global_every", 0),
        ("num_kv_heads", 3),
        ("head_dim", 5),
        ("logit_cap", -1.0),
        ("tie_embeddings", False),
    ],
)
def test_models_that_cannot_be(field, value):
    config = section("model", "gemma", **{**TINY, field: value})
    with pytest.raises(ConfigError, match=f"model.{field}"):
        build("model", config)
