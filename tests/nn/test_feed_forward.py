import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import noisy_parameters, normal
from transformer.nn.feed_forward import FeedForward


@pytest.fixture
def x():
    return normal(np.random.default_rng(0), 2, 3, 4)


def dense(params, x):
    return x @ params["kernel"] + params.get("bias", 0.0)


def test_plain(x):
    layer = FeedForward(width=6, activation="relu")
    params = noisy_parameters(layer, x)
    expected = dense(params["down"], jnp.maximum(dense(params["up"], x), 0))
    np.testing.assert_allclose(layer.apply({"params": params}, x), expected, atol=1e-5)


@pytest.mark.parametrize("use_bias", [True, False])
def test_gated(x, use_bias):
    layer = FeedForward(width=6, activation="silu", gated=True, use_bias=use_bias)
    params = noisy_parameters(layer, x)
    assert ("bias" in params["gate"]) == use_bias
    gate = jax.nn.silu(dense(params["gate"], x))
    expected = dense(params["down"], gate * dense(params["up"], x))
    np.testing.assert_allclose(layer.apply({"params": params}, x), expected, atol=1e-5)
