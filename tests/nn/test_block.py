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


@pytest.mark.parametrize("order", ["pre", "post"])
def test_layer_scale_multiplies_each_branch(x, order):
    plain, params = make(order, x)
    block, scaled = make(order, x, layer_scale=0.25)
    names = {"attention_scale", "feed_forward_scale"}
    assert set(scaled) == set(params) | names
    initial = block.init(jax.random.key(0), x)["params"]
    for name in names:
        np.testing.assert_array_equal(initial[name].value, np.full(8, 0.25, np.float32))
    expected, _ = plain.apply({"params": params}, x)

    def output(attention, feed_forward):
        factors = {"attention_scale": attention, "feed_forward_scale": feed_forward}
        return block.apply({"params": {**params, **factors}}, x)[0]

    one, zero = jnp.ones(8), jnp.zeros(8)
    np.testing.assert_allclose(output(one, one), expected, atol=1e-6)
    # Factors are the same as another last layer of the branch, each for its own feature.
    factors = jnp.linspace(-1.0, 2.0, 8)
    down, last = params["feed_forward"]["down"], params["attention"]["output"]
    for name, module, layer, kernel in (
        ("feed_forward", "feed_forward", "down", down),
        ("attention", "attention", "output", last),
    ):
        other = {key: value * factors for key, value in kernel.items()}
        changed = {**params, module: {**params[module], layer: other}}
        scales = (factors, one) if name == "attention" else (one, factors)
        np.testing.assert_allclose(
            output(*scales), plain.apply({"params": changed}, x)[0], atol=1e-5
        )
    if order == "pre":
        np.testing.assert_array_equal(output(zero, zero), x)


def test_skipped_branches_leave_the_stream_as_it_is():
    x = normal(np.random.default_rng(1), 64, 3, 8)
    block, params = make("pre", x)

    @jax.jit
    def run(rate, rngs):
        return block.apply({"params": params}, x, skip_rate=rate, rngs=rngs)[0]

    key = {"dropout": jax.random.key(0)}
    plain, _ = block.apply({"params": params}, x)
    # Without a key nothing is left out, and at a rate of 0 neither.
    np.testing.assert_allclose(run(jnp.float32(0.5), {}), plain, atol=1e-5)
    np.testing.assert_allclose(run(jnp.float32(0.0), key), plain, atol=1e-5)
    # Close to 1 everything is.
    np.testing.assert_array_equal(run(jnp.float32(1 - 1e-7), key), x)

    attention, feed_forward, norm = branches(params, None)
    first = 2 * attention(norm("attention_norm", x))
    ways = []
    for one in (x, x + first):
        ways += [one, one + 2 * feed_forward(norm("feed_forward_norm", one))]
    output = run(jnp.float32(0.5), key)
    # Each example went one of four ways, for each branch is drawn by itself.
    near = np.stack([np.abs(output - way).max(axis=(1, 2)) < 1e-4 for way in ways])
    np.testing.assert_array_equal(near.sum(axis=0), 1)
    assert (near.sum(axis=1) > 4).all()
