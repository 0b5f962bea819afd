import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import noisy_parameters, normal
from transformer.nn.attention import FUSED_FROM, Attention
from transformer.nn.caches import KVCache
from transformer.nn.norms import RMSNorm
from transformer.ops.masks import at_positions, causal
from transformer.ops.positions import rotary

VARIANTS = {
    "plain": {},
    "grouped": {"num_kv_heads": 2},
    "rotary": {"position": rotary},
    "window": {"window": 3},
    "head norm, wide heads, no bias": {
        "head_norm": RMSNorm,
        "head_dim": 6,
        "use_bias": False,
        "use_output_bias": False,
        "logit_cap": 2.0,
    },
}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_cached_is_uncached(rng, variant):
    """Rows that are at different positions, read in one go and then one by one."""
    length, prompt_lengths = 9, np.array([3, 6])
    x = normal(rng, 2, length, 8)
    layer = Attention(num_heads=4, **VARIANTS[variant])
    params = noisy_parameters(layer, x)
    apply = jax.jit(functools.partial(layer.apply, {"params": params}))
    expected, none = apply(x, mask=causal())
    assert none is None

    fields = VARIANTS[variant]
    kv_heads, head_dim = fields.get("num_kv_heads", 4), fields.get("head_dim", 2)
    cache = KVCache.empty(2, length, kv_heads, head_dim, "float32")

    def step(x, positions, cache):
        mask = causal() & at_positions(positions)
        return apply(x, mask=mask, positions=positions, cache=cache)

    prompt = jnp.broadcast_to(jnp.arange(6), (2, 6))
    output, cache = step(x[:, :6], prompt, cache)
    np.testing.assert_allclose(output[1], expected[1, :6], atol=1e-5)
    np.testing.assert_allclose(output[0, :3], expected[0, :3], atol=1e-5)
    for more in range(3):
        positions = jnp.asarray(prompt_lengths + more)[:, None]
        rows = jnp.arange(2)[:, None]
        output, cache = step(x[rows, positions], positions, cache)
        np.testing.assert_allclose(output, expected[rows, positions], atol=1e-5)


def test_cache_write_is_by_row():
    cache = KVCache.empty(2, 3, 1, 1, "float32")
    ones = jnp.ones((2, 1, 1, 1))
    cache = cache.write(ones, 2 * ones, jnp.array([[0], [2]]))
    keys, values = cache.read()
    np.testing.assert_array_equal(keys[..., 0, 0], [[1, 0, 0], [0, 0, 1]])
    np.testing.assert_array_equal(values[..., 0, 0], [[2, 0, 0], [0, 0, 2]])


def test_cross_attention_reads_the_memory(rng):
    x, memory = normal(rng, 2, 3, 8), normal(rng, 2, 5, 8)
    layer = Attention(num_heads=2)
    params = noisy_parameters(layer, x, memory)
    output, _ = layer.apply({"params": params}, x, memory)
    swapped, _ = layer.apply({"params": params}, x, memory[:, ::-1])
    np.testing.assert_allclose(output, swapped, atol=1e-5)
    changed, _ = layer.apply({"params": params}, x, memory + 1)
    assert np.abs(output - changed).max() > 1e-2


def test_projections_in_numpy(rng):
    x = normal(rng, 1, 3, 4)
    layer = Attention(num_heads=2)
    params = noisy_parameters(layer, x)

    def project(name):
        return np.einsum("btd,dnh->btnh", x, params[name]["kernel"]) + params[name]["bias"]

    query, key, value = (project(name) for name in ("query", "key", "value"))
    weights = np.exp(np.einsum("btnh,bsnh->bnts", query, key) / np.sqrt(2))
    weights = weights / weights.sum(-1, keepdims=True)
    attended = np.einsum("bnts,bsnh->btnh", weights, value)
    expected = np.einsum("btnh,nhd->btd", attended, params["output"]["kernel"])
    output, _ = layer.apply({"params": params}, x)
    np.testing.assert_allclose(output, expected + params["output"]["bias"], atol=1e-5)


def test_weights_drop_exactly_with_a_key(rng):
    x = normal(rng, 1, 4, 4)
    layer, plain = Attention(num_heads=2, dropout_rate=0.5), Attention(num_heads=2)
    params = noisy_parameters(layer, x)
    expected, _ = plain.apply({"params": params}, x)
    without, _ = layer.apply({"params": params}, x)
    with_key, _ = layer.apply({"params": params}, x, rngs={"dropout": jax.random.key(0)})
    np.testing.assert_array_equal(without, expected)
    assert np.abs(with_key - expected).max() > 1e-3


def test_many_tokens_are_projected_by_one_product_on_a_cpu(rng, monkeypatch):
    x = normal(rng, 2, FUSED_FROM // 2, 8)
    layer = Attention(num_heads=4, num_kv_heads=2, use_key_bias=False)
    params = noisy_parameters(layer, x)

    def computed():
        # A function of its own for each call, as JAX would remember what the first one did.
        def loss(params, x):
            return jnp.sum(jnp.sin(layer.apply({"params": params}, x, mask=causal())[0]))

        both = jax.value_and_grad(loss, (0, 1))
        return jax.jit(both)(params, x), str(jax.make_jaxpr(both)(params, x)).count("dot_general")

    together, products = computed()
    monkeypatch.setattr("transformer.nn.attention.is_one_cpu", lambda: False)
    apart, more = computed()
    # Forward, and the gradients of the source and the kernel.
    assert more - products == 3 * 2
    for actual, expected in zip(jax.tree.leaves(together), jax.tree.leaves(apart), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-4, rtol=1e-5)
