import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import noisy_parameters, normal
from transformer.nn.attention import Attention
from transformer.nn.block import Block
from transformer.nn.feed_forward import FeedForward
from transformer.nn.norms import LayerNorm
from transformer.ops.masks import causal
from transformer.ops.normalization import layer_norm

ATTENTION = functools.partial(Attention, num_heads=2)
FEED_FORWARD = functools.partial(FeedForward, width=12)


@pytest.fixture
def x():
    return normal(np.random.default_rng(0), 2, 5, 8)


def branches(params, mask):
    def attention(x):
        return ATTENTION().apply({"params": params["attention"]}, x, mask=mask)[0]

    def feed_forward(x):
        return FEED_FORWARD().apply({"params": params["feed_forward"]}, x)

    def norm(name, x):
        return layer_norm(x, params[name]["scale"], params[name]["bias"])

    return attention, feed_forward, norm


def make(order, x, **fields):
    block = Block(attention=ATTENTION, feed_forward=FEED_FORWARD, norm=LayerNorm, order=order)
    block = block.clone(**fields)
    return block, noisy_parameters(block, x)


def test_pre_norm(x):
    block, params = make("pre", x)
    output, cache = block.apply({"params": params}, x, None, causal())
    attention, feed_forward, norm = branches(params, causal())
    expected = x + attention(norm("attention_norm", x))
    expected = expected + feed_forward(norm("feed_forward_norm", expected))
    np.testing.assert_allclose(output, expected, atol=1e-5)
    assert cache is None


def test_post_norm(x):
    block, params = make("post", x)
    output, _ = block.apply({"params": params}, x, None, causal())
    attention, feed_forward, norm = branches(params, causal())
    expected = norm("attention_norm", x + attention(x))
    expected = norm("feed_forward_norm", expected + feed_forward(expected))
    np.testing.assert_allclose(output, expected, atol=1e-5)


@pytest.mark.parametrize("order", ["pre", "post"])
def test_both_branches_drop(x, order):
    block, params = make(order, x, dropout_rate=0.5)
    silent = {"kernel": jnp.zeros((12, 8)), "bias": jnp.zeros(8)}
    without_second = {**params, "feed_forward": {**params["feed_forward"], "down": silent}}
    silent = {"kernel": jnp.zeros((2, 4, 8)), "bias": jnp.zeros(8)}
    without_first = {**params, "attention": {**params["attention"], "output": silent}}
    for params in (without_first, without_second):
        plain, _ = block.apply({"params": params}, x)
        dropped, _ = block.apply({"params": params}, x, rngs={"dropout": jax.random.key(0)})
        assert np.abs(plain - dropped).max() > 1e-2
