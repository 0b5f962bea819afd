import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import assert_trees_close, noisy_parameters, normal
from transformer.nn.feed_forward import FeedForward
from transformer.nn.mixture import LOSSES, MixtureOfExperts, active_parameters
from transformer.sharding import is_box

LAYER = MixtureOfExperts(num_experts=4, experts_per_token=2, width=6)


@functools.partial(jax.jit, static_argnums=0)
def run(layer, params, x):
    """The output, and what is sown."""
    return layer.apply({"params": params}, x, mutable=[LOSSES])


@pytest.fixture(scope="module")
def x():
    return normal(np.random.default_rng(0), 2, 5, 4)


@pytest.fixture(scope="module")
def params(x):
    return noisy_parameters(LAYER, x)


def test_parameters_name_their_axes(x):
    shapes = jax.eval_shape(LAYER.init, jax.random.key(0), x)
    assert set(shapes) == {"params"}  # What routers sow is none of the state.
    found = {
        jax.tree_util.keystr(path, simple=True, separator="/"): (leaf.names, leaf.value.shape)
        for path, leaf in jax.tree_util.tree_leaves_with_path(shapes["params"], is_leaf=is_box)
    }
    assert found == {
        "router/kernel": (("embed", "expert"), (4, 4)),
        "experts/gate/kernel": (("expert", "embed", "mlp"), (4, 4, 6)),
        "experts/up/kernel": (("expert", "embed", "mlp"), (4, 4, 6)),
        "experts/down/kernel": (("expert", "mlp", "embed"), (4, 6, 4)),
    }


def test_initial_sizes():
    layer = LAYER.clone(width=64, init_scale=0.1, output_init_scale=0.01)
    params = nn.meta.unbox(jax.jit(layer.init)(jax.random.key(0), jnp.ones((1, 1, 64))))["params"]
    for name, scale in {"gate": 0.1, "up": 0.1, "down": 0.01}.items():
        kernel = params["experts"][name]["kernel"]
        np.testing.assert_allclose(jnp.std(kernel, axis=(1, 2)), scale, rtol=0.1)


@pytest.mark.parametrize("capacity_factor", [None, 9.0])
def test_equal_experts_are_one_feed_forward_layer(x, capacity_factor):
    dense = FeedForward(6, "silu", gated=True, use_bias=False)
    params = noisy_parameters(dense, x)
    mixture = {
        "router": {"kernel": normal(np.random.default_rng(1), 4, 4)},
        "experts": jax.tree.map(lambda kernel: jnp.stack([kernel] * 4), params),
    }
    layer = LAYER.clone(capacity_factor=capacity_factor)
    expected = dense.apply({"params": params}, x)
    np.testing.assert_allclose(run(layer, mixture, x)[0], expected, atol=1e-6)


def test_tokens_without_a_place_are_zero(x, params):
    layer = LAYER.clone(capacity_factor=0.2)  # One place in each expert: at most four tokens.
    output, _ = run(layer, params, x)
    assert np.all(np.abs(output[0, 0]) > 0)
    assert np.sum(np.any(np.asarray(output) != 0, axis=-1)) <= 4


def test_computes_in_its_dtype(x, params):
    expected, sown = run(LAYER, params, x)
    for capacity_factor in (None, 9.0):
        layer = LAYER.clone(dtype="bfloat16", capacity_factor=capacity_factor)
        output, collected = run(layer, params, x)
        assert output.dtype == jnp.bfloat16
        assert_trees_close(collected, sown, rtol=1e-6)  # Routers compute in float32.
        np.testing.assert_allclose(output.astype(jnp.float32), expected, atol=0.02)


def test_losses_only_where_somebody_asks(x, params):
    def sown(params, collection):
        return LAYER.apply({"params": params}, x, mutable=[collection])[1]

    assert jax.eval_shape(lambda params: sown(params, "other"), params) == {}
    collected = jax.eval_shape(lambda params: sown(params, LOSSES), params)
    assert set(collected[LOSSES]) == {"router_balance", "router_z"}


def test_active_parameters(params):
    router, experts = 4 * 4, 3 * 4 * 4 * 6
    assert active_parameters({"a": params}, 2) == router + experts // 2
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), params)
    assert active_parameters(stacked, 1) == 3 * (router + experts // 4)
