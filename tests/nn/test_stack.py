import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import assert_trees_close, noisy_parameters, normal
from transformer.errors import ConfigError
from transformer.nn import layouts
from transformer.nn.attention import Attention
from transformer.nn.block import Block
from transformer.nn.caches import KVCache
from transformer.nn.feed_forward import FeedForward
from transformer.nn.norms import LayerNorm
from transformer.nn.stack import MAX_UNROLLED, REMAT_POLICIES, Stack
from transformer.ops.masks import at_positions, causal
from transformer.training.sections import build, section

LAYERS = 2
BLOCK = functools.partial(
    Block,
    attention=functools.partial(Attention, num_heads=2),
    feed_forward=functools.partial(FeedForward, width=8),
    norm=LayerNorm,
)


@pytest.fixture(scope="module")
def x():
    return normal(np.random.default_rng(0), 2, 5, 4)


@pytest.fixture(scope="module")
def unrolled(x):
    return noisy_parameters(Stack(BLOCK, LAYERS), x)


def stacked(params):
    layers = [params[f"layer_{index}"] for index in range(LAYERS)]
    return {"layers": jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)}


def run(x, params, **fields):
    """Outputs, and gradients of the parameters and the input."""
    stack = Stack(BLOCK, LAYERS, **fields)

    @jax.jit
    def both(params, x):
        def loss(params, x):
            output, _ = stack.apply({"params": params}, x, None, mask=causal())
            return jnp.sum(jnp.sin(output)), output

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x)

    gradients, output = both(params, x)
    return output, gradients


@jax.jit
def one_layer(params, x):
    return BLOCK().apply({"params": params}, x, None, mask=causal())


@pytest.fixture(scope="module")
def expected(x, unrolled):
    return run(x, unrolled)


def test_layers_follow_one_another(x, unrolled, expected):
    for index in range(LAYERS):
        x, _ = one_layer(unrolled[f"layer_{index}"], x)
    np.testing.assert_allclose(expected[0], x, atol=1e-5)


@pytest.mark.parametrize("remat", ["none", *REMAT_POLICIES])
def test_scanned_is_unrolled(x, unrolled, expected, remat):
    output, gradients = run(x, stacked(unrolled), scan=True, remat=remat)
    np.testing.assert_allclose(output, expected[0], atol=1e-5)
    params_gradient, x_gradient = expected[1]
    assert_trees_close(gradients, (stacked(params_gradient), x_gradient), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("remat", REMAT_POLICIES)
def test_remat_changes_no_number(x, unrolled, expected, remat):
    assert_trees_close(run(x, unrolled, remat=remat), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scan", [False, True])
def test_initial_layers_differ(x, scan):
    params = jax.jit(Stack(BLOCK, 2, scan=scan).init)(jax.random.key(0), x)["params"]
    if scan:
        first, second = params["layers"]["feed_forward"]["up"]["kernel"].value
    else:
        first, second = (
            params[f"layer_{i}"]["feed_forward"]["up"]["kernel"].value for i in range(2)
        )
    assert first.shape == second.shape
    assert np.abs(first - second).max() > 1e-3


def test_scanned_cache_is_unrolled_cache(x, unrolled):
    empty = KVCache.empty(2, 5, 2, 2, "float32")
    positions = jnp.broadcast_to(jnp.arange(5), (2, 5))
    mask = causal() & at_positions(positions)

    @functools.partial(jax.jit, static_argnums=2)
    def cached(params, caches, scan):
        stack = Stack(BLOCK, LAYERS, scan=scan)
        return stack.apply({"params": params}, x, caches, mask=mask, positions=positions)

    output, caches = cached(unrolled, (empty,) * LAYERS, False)
    repeated = jax.tree.map(lambda leaf: jnp.stack([leaf] * LAYERS), empty)
    scanned_output, scanned_caches = cached(stacked(unrolled), repeated, True)
    np.testing.assert_allclose(scanned_output, output, atol=1e-5)
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *caches)
    assert_trees_close(scanned_caches, together, atol=1e-5)


def test_scanned_layers_drop_differently():
    block = functools.partial(
        BLOCK,
        attention=functools.partial(Attention, num_heads=1, output_init_scale=0.0),
        dropout_rate=0.5,
    )
    x = jnp.zeros((1, 1, 400))
    stack = Stack(block, 2, scan=True)
    params = noisy_parameters(stack, x)
    params = jax.tree.map(jnp.zeros_like, params)
    # Each layer adds its dropped bias to the residual stream: 0 or 2, so 0, 2 or 4 after two.
    params["layers"]["feed_forward"]["down"]["bias"] = jnp.ones((2, 400))
    dropping = {"dropout": jax.random.key(0)}
    output, _ = jax.jit(stack.apply)({"params": params}, x, rngs=dropping)
    assert set(np.unique(output)) == {0.0, 2.0, 4.0}


def with_rates(x, params, rates, scan, seed=None):
    rngs = {} if seed is None else {"dropout": jax.random.key(seed)}
    return skipping(x, params, jnp.asarray(rates, jnp.float32), scan, rngs)


@functools.partial(jax.jit, static_argnums=3)
def skipping(x, params, rates, scan, rngs):
    stack = Stack(BLOCK, LAYERS, scan=scan)
    per_layer = {"skip_rate": rates}
    return stack.apply({"params": params}, x, None, per_layer, mask=causal(), rngs=rngs)[0]


@pytest.mark.parametrize("scan", [False, True])
def test_every_layer_is_handed_its_own(x, unrolled, expected, scan):
    params = stacked(unrolled) if scan else unrolled
    # Without a key, and with one at rates of zero, nothing is left out.
    for output in (
        with_rates(x, params, [0.5, 0.9], scan),
        with_rates(x, params, [0.0, 0.0], scan, 0),
    ):
        np.testing.assert_allclose(output, expected[0], atol=1e-5)
    # The only layer that is never left out, by its place.
    always = 1.0 - 1e-7
    for index in range(LAYERS):
        rates = [0.0 if layer == index else always for layer in range(LAYERS)]
        alone, _ = one_layer(unrolled[f"layer_{index}"], x)
        np.testing.assert_allclose(with_rates(x, params, rates, scan, 0), alone, atol=1e-5)


def test_remat_leaves_out_the_same_branches(x, unrolled):
    def gradient(remat):
        stack = Stack(BLOCK, LAYERS, scan=True, remat=remat)
        per_layer = {"skip_rate": jnp.array([0.3, 0.6])}
        rngs = {"dropout": jax.random.key(0)}

        @jax.jit
        @jax.grad
        def of(params):
            output, _ = stack.apply({"params": params}, x, None, per_layer, rngs=rngs)
            return jnp.sum(jnp.sin(output))

        return of(stacked(unrolled))

    assert_trees_close(gradient("full"), gradient("none"), rtol=1e-4, atol=1e-5)


# A first block without a normalisation, then blocks with and without a gate by turns.
TURNS = (
    functools.partial(BLOCK, feed_forward=functools.partial(FeedForward, width=8, gated=True)),
)
BY_TURNS = {"block": (*TURNS, BLOCK), "first": (functools.partial(BLOCK, order="post"),)}


@pytest.mark.parametrize("depth", [1, 6])
def test_blocks_of_other_structure_take_turns(x, depth):
    def run(params, caches, scan, remat):
        stack = Stack(**BY_TURNS, num_layers=depth, scan=scan, remat=remat)
        rates = {"skip_rate": jnp.linspace(0.1, 0.9, depth)}
        rows = {"mask": mask, "positions": positions}
        output, caches = stack.apply({"params": params}, x, caches, rates, **rows)
        return jnp.sum(jnp.sin(output)), (output, caches)

    positions = jnp.broadcast_to(jnp.arange(5), (2, 5))
    mask, empty = causal() & at_positions(positions), KVCache.empty(2, 5, 2, 2, "float32")
    run = jax.jit(jax.value_and_grad(run, has_aux=True), static_argnums=(2, 3))
    params = noisy_parameters(Stack(**BY_TURNS, num_layers=depth), x)
    assert [("gate" in params[f"layer_{n}"]["feed_forward"]) for n in range(depth)] == [
        n % 2 == 1 for n in range(depth)
    ]
    (_, (output, caches)), gradient = run(params, (empty,) * depth, False, "none")
    apart = layouts.stacked(params, first=1, turns=2)
    scanned = Stack(**BY_TURNS, num_layers=depth, scan=True)
    shapes = nn.meta.unbox(jax.eval_shape(scanned.init, jax.random.key(0), x)["params"])
    assert jax.tree.map(jnp.shape, apart) == jax.tree.map(jnp.shape, shapes)
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *caches)
    repeated = jax.tree.map(lambda leaf: jnp.stack([leaf] * depth), empty)
    (_, found), slope = run(apart, repeated, True, "full")
    assert_trees_close(found, (output, together), atol=1e-5)
    assert_trees_close(layouts.unstacked(slope), gradient, rtol=1e-4, atol=1e-5)


def test_depths_that_no_compiler_takes_one_by_one():
    deep = {"num_layers": MAX_UNROLLED + 1, "width": 8, "num_heads": 1}
    with pytest.raises(ConfigError, match=r"config\.model\.num_layers is 257.*scan_layers=True"):
        build("model", section("model", "gpt", **deep))
    build("model", section("model", "gpt", compute={"scan_layers": True}, **deep))
    with pytest.raises(ConfigError, match=r"num_decoder_layers is 300.*scan_layers=True"):
        build("model", section("model", "t5", num_decoder_layers=300))
