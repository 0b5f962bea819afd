"""Attention to a memory: in a block, with caches, in stacks, and what it looks at."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import assert_trees_close, noisy_parameters, normal
from transformer.nn.attention import Attention
from transformer.nn.block import Block, DecoderCache
from transformer.nn.caches import KVCache
from transformer.nn.feed_forward import FeedForward
from transformer.nn.norms import LayerNorm
from transformer.nn.stack import Stack
from transformer.ops.masks import at_positions, causal, explicit, padding
from transformer.ops.normalization import layer_norm
from transformer.ops.positions import rotary

LENGTH, LAYERS = 6, 2
ATTENTION = functools.partial(Attention, num_heads=2)
FEED_FORWARD = functools.partial(FeedForward, width=12)
BLOCK = functools.partial(
    Block,
    attention=ATTENTION,
    cross_attention=ATTENTION,
    feed_forward=FEED_FORWARD,
    norm=LayerNorm,
)
VALID = padding(jnp.arange(4) < jnp.array([[4], [2]]))


@pytest.fixture(scope="module")
def x():
    return normal(np.random.default_rng(0), 2, LENGTH, 8)


@pytest.fixture(scope="module")
def memory():
    return normal(np.random.default_rng(1), 2, 4, 8)


def block_and_params(order, x, memory):
    block = BLOCK(order=order)
    return block, noisy_parameters(block, x, memory=memory)


@pytest.mark.parametrize("order", ["pre", "post"])
def test_formula(order, x, memory):
    block, params = block_and_params(order, x, memory)
    run = functools.partial(block.apply, {"params": params}, memory_mask=VALID)
    output, cache = jax.jit(lambda x, memory: run(x, None, causal(), memory=memory))(x, memory)
    attention = ATTENTION()

    def norm(name, x):
        return layer_norm(x, params[f"{name}_norm"]["scale"], params[f"{name}_norm"]["bias"])

    def look_back(x):
        return attention.apply({"params": params["attention"]}, x, mask=causal())[0]

    def look_across(x):
        return attention.apply({"params": params["cross_attention"]}, x, memory, mask=VALID)[0]

    def feed_forward(x):
        return FEED_FORWARD().apply({"params": params["feed_forward"]}, x)

    branches = {
        "attention": look_back,
        "cross_attention": look_across,
        "feed_forward": feed_forward,
    }

    @jax.jit
    def expected(x):
        for name, branch in branches.items():
            x = x + branch(norm(name, x)) if order == "pre" else norm(name, x + branch(x))
        return x

    np.testing.assert_allclose(output, expected(x), atol=1e-5)
    assert cache is None


def test_hidden_memory_does_not_matter(x, memory):
    block, params = block_and_params("pre", x, memory)
    run = functools.partial(block.apply, {"params": params}, x, None, causal(), memory_mask=VALID)
    run = jax.jit(run)
    expected, _ = run(memory=memory)
    hidden, _ = run(memory=memory.at[1, 2:].add(5.0))
    seen, _ = run(memory=memory.at[1, :2].add(5.0))
    np.testing.assert_array_equal(hidden, expected)
    np.testing.assert_array_equal(seen[0], expected[0])
    assert (np.abs(seen - expected)[1].max(-1) > 1e-3).all()


def read_in_parts(apply, x, memory, cache):
    """Three positions with the memory, then one by one without it."""
    outputs = []
    for start, stop in ((0, 3), *((place, place + 1) for place in range(3, LENGTH))):
        positions = jnp.broadcast_to(jnp.arange(start, stop), (2, stop - start))
        output, cache = apply(
            x[:, start:stop],
            cache,
            mask=causal() & at_positions(positions),
            positions=positions,
            memory=memory if start == 0 else None,
            memory_mask=VALID,
        )
        outputs.append(output)
    return jnp.concatenate(outputs, axis=1), cache


@pytest.mark.parametrize("order", ["pre", "post"])
def test_cached_is_uncached(order, x, memory):
    block, params = block_and_params(order, x, memory)
    apply = jax.jit(functools.partial(block.apply, {"params": params}))
    expected, _ = apply(x, mask=causal(), memory=memory, memory_mask=VALID)
    empty = DecoderCache(KVCache.empty(2, LENGTH, 2, 4, "float32"))
    output, cache = read_in_parts(apply, x, memory, empty)
    np.testing.assert_allclose(output, expected, atol=1e-5)
    kernel, bias = (params["cross_attention"]["key"][name] for name in ("kernel", "bias"))
    keys = np.einsum("bsd,dnh->bnsh", memory, kernel) + np.asarray(bias)[:, None]
    np.testing.assert_allclose(cache.memory.key, keys, atol=1e-5)


def test_scanned_is_unrolled(x, memory):
    unrolled, scanned = Stack(BLOCK, LAYERS), Stack(BLOCK, LAYERS, scan=True)
    params = noisy_parameters(unrolled, x, memory=memory)
    layers = [params[f"layer_{index}"] for index in range(LAYERS)]
    stacked = {"layers": jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)}
    empty = DecoderCache(KVCache.empty(2, LENGTH, 2, 4, "float32"))
    every = jax.tree.map(lambda leaf: jnp.stack([leaf] * LAYERS), empty)

    one_by_one = jax.jit(functools.partial(unrolled.apply, {"params": params}))
    looped = jax.jit(functools.partial(scanned.apply, {"params": stacked}))
    expected, none = one_by_one(x, mask=causal(), memory=memory, memory_mask=VALID)
    assert none is None
    output, _ = looped(x, mask=causal(), memory=memory, memory_mask=VALID)
    np.testing.assert_allclose(output, expected, atol=1e-5)

    output, caches = read_in_parts(one_by_one, x, memory, (empty,) * LAYERS)
    np.testing.assert_allclose(output, expected, atol=1e-5)
    output, cache = read_in_parts(looped, x, memory, every)
    np.testing.assert_allclose(output, expected, atol=1e-5)
    joined = jax.tree.map(lambda *leaves: jnp.stack(leaves), *caches)
    assert_trees_close(cache, joined, atol=1e-5)


@pytest.mark.parametrize("slots", [[4, 0, 5, 2, 1, 3], [0, 1, 2, 3, 4, 5]], ids=str)
def test_slots_are_apart_from_positions(x, slots):
    layer = ATTENTION(position=rotary)
    params = noisy_parameters(layer, x)
    apply = jax.jit(functools.partial(layer.apply, {"params": params}))
    expected, _ = apply(x, mask=causal())
    cache = KVCache.empty(2, LENGTH, 2, 4, "float32")
    for place, slot in enumerate(slots):
        seen = np.isin(np.arange(LENGTH), slots[: place + 1])
        output, cache = apply(
            x[:, place : place + 1],
            mask=explicit(jnp.asarray(seen)[None, None, None]),
            positions=jnp.full((2, 1), place),
            slots=jnp.full((2, 1), slot),
            cache=cache,
        )
        np.testing.assert_allclose(output[:, 0], expected[:, place], atol=1e-5)


def test_weights_that_are_kept_are_the_softmax(x):
    layer = Attention(num_heads=4, num_kv_heads=2, logit_cap=2.0)
    params = noisy_parameters(layer, x)
    run = functools.partial(layer.apply, mask=causal(), mutable=["intermediates"])
    _, kept = jax.jit(run)({"params": params}, x)
    weights = kept["intermediates"]["weights"]

    def project(name):
        return np.einsum("btd,dnh->btnh", x, params[name]["kernel"]) + params[name]["bias"]

    query, key = project("query"), project("key").repeat(2, axis=2)
    logits = np.einsum("btnh,bsnh->bnts", query, key) / np.sqrt(2)
    logits = np.where(np.tri(LENGTH, dtype=bool), 2.0 * np.tanh(logits / 2.0), -np.inf)
    expected = np.exp(logits)
    np.testing.assert_allclose(weights, expected / expected.sum(-1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize("scan", [False, True])
def test_weights_are_kept_only_where_asked_for(x, memory, scan):
    stack = Stack(BLOCK, LAYERS, scan=scan)
    make = functools.partial(stack.init, memory=memory)
    variables = jax.eval_shape(make, jax.random.key(0), x)
    assert set(variables) == {"params"}
    params = noisy_parameters(stack, x, memory=memory)

    def collections(**options):
        run = functools.partial(stack.apply, {"params": params}, memory=memory, **options)
        return jax.eval_shape(run, x)

    assert collections(mutable=["other"])[1] == {}
    kept = collections(mutable=["intermediates"])[1]["intermediates"]
    leaves = jax.tree_util.tree_leaves_with_path(kept)
    shapes = {leaf.shape for path, leaf in leaves if path[-1].key == "weights"}
    lead = (LAYERS,) if scan else ()
    assert shapes == {(*lead, 2, 2, LENGTH, LENGTH), (*lead, 2, 2, LENGTH, 4)}
