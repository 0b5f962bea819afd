import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import normal
from transformer.ops import attention
from transformer.ops.attention import (
    attention_weights,
    choose_implementation,
    dot_product_attention,
    refusal,
)
from transformer.ops.masks import (
    Mask,
    at_positions,
    causal,
    explicit,
    padding,
    segments,
    sliding_window,
)

# The others are kernels of a kind of device: see test_kernels.py.
ANYWHERE = ("einsum", "blockwise")


def reference(query, key, value, *, allowed=None, bias=None, scale=None, logit_cap=None):
    """Softmax attention in NumPy and float64, one obvious line after another."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    groups = query.shape[2] // key.shape[2]
    key, value = (np.repeat(x, groups, axis=2) for x in (key, value))
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    logits = np.einsum("btnh,bsnh->bnts", query, key) * scale
    if logit_cap is not None:
        logits = logit_cap * np.tanh(logits / logit_cap)
    if bias is not None:
        logits = logits + np.asarray(bias, np.float64)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    if allowed is not None:
        weights = weights * np.asarray(allowed)
    total = weights.sum(-1, keepdims=True)
    return np.einsum("bnts,bsnh->btnh", weights / np.where(total == 0, 1, total), value)


def inputs(rng, *, batch=2, queries=5, keys=7, heads=4, kv_heads=4, head_dim=8):
    return (
        normal(rng, batch, queries, heads, head_dim),
        normal(rng, batch, keys, kv_heads, head_dim),
        normal(rng, batch, keys, kv_heads, head_dim),
    )


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_einsum_is_softmax_attention(rng, kv_heads):
    q, k, v = inputs(rng, kv_heads=kv_heads)
    output = dot_product_attention(q, k, v, implementation="einsum")
    np.testing.assert_allclose(output, reference(q, k, v), atol=1e-5)


def test_weights_by_hand():
    # The product 2 is divided by the root of 4.
    query, keys = 2 * jnp.eye(4)[None, :1, None], jnp.eye(4)[None, :2, None]
    weights = attention_weights(query, keys, mask=Mask())
    np.testing.assert_allclose(
        weights[0, 0, 0], [math.e / (1 + math.e), 1 / (1 + math.e)], rtol=1e-5
    )


@pytest.mark.parametrize("shape", [(2, 4, 5, 7), (1, 4, 5, 7), (2, 1, 5, 7), (1, 1, 5, 7)])
def test_boolean_masks(rng, shape):
    q, k, v = inputs(rng, kv_heads=2)
    allowed = rng.random(shape) < 0.6
    for name in ANYWHERE:
        output = dot_product_attention(q, k, v, mask=jnp.asarray(allowed), implementation=name)
        np.testing.assert_allclose(output, reference(q, k, v, allowed=allowed), atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 4, 5, 7), (1, 4, 5, 7), (1, 1, 5, 7)])
def test_einsum_with_bias(rng, shape):
    q, k, v = inputs(rng)
    bias = normal(rng, *shape)
    output = dot_product_attention(q, k, v, bias=bias, implementation="einsum")
    np.testing.assert_allclose(output, reference(q, k, v, bias=bias), atol=1e-5)


def test_bias_comes_after_cap_and_scale(rng):
    q, k, v = inputs(rng)
    bias = 3 * normal(rng, 1, 4, 5, 7)
    options = {"bias": bias, "scale": 0.7, "logit_cap": 1.5}
    output = dot_product_attention(q, k, v, **options)
    np.testing.assert_allclose(output, reference(q, k, v, **options), atol=1e-5)


@pytest.mark.parametrize("implementation", ANYWHERE)
def test_large_logits_do_not_overflow(rng, implementation):
    q, k, v = inputs(rng)
    output = dot_product_attention(q, k, v, scale=1e3, implementation=implementation)
    np.testing.assert_allclose(output, reference(q, k, v, scale=1e3), atol=1e-3)


@pytest.mark.parametrize("implementation", ANYWHERE)
def test_bfloat16_in_bfloat16_out_softmax_in_float32(rng, implementation):
    q, k, v = (x.astype(jnp.bfloat16) for x in inputs(rng, keys=200))
    output = dot_product_attention(q, k, v, implementation=implementation)
    assert output.dtype == jnp.bfloat16
    np.testing.assert_allclose(output.astype(jnp.float32), reference(q, k, v), atol=1e-2)


@pytest.mark.parametrize("implementation", ANYWHERE)
def test_gradients_are_in_the_dtypes_of_what_they_are_of(implementation):
    x = jax.ShapeDtypeStruct((1, 4, 2, 8), jnp.bfloat16)

    def total(*arrays):
        attended = dot_product_attention(*arrays, implementation=implementation)
        return jnp.sum(attended.astype(jnp.float32))

    gradients = jax.eval_shape(jax.grad(total, argnums=(0, 1, 2)), x, x, x)
    assert [gradient.dtype for gradient in gradients] == [jnp.bfloat16] * 3


@pytest.mark.parametrize("implementation", ANYWHERE)
def test_query_without_keys_gives_zeros_and_finite_gradients(rng, implementation):
    q, k, v = inputs(rng)
    allowed = np.ones((2, 1, 5, 7), bool)
    allowed[0, :, 2] = False
    allowed[1] = False

    @jax.jit
    def attend(q, k, v):
        mask = explicit(jnp.asarray(allowed))
        return dot_product_attention(q, k, v, mask=mask, implementation=implementation)

    output, pull = jax.vjp(attend, q, k, v)
    gradients = pull(jnp.ones_like(output))
    np.testing.assert_array_equal(output[0, 2], 0)
    np.testing.assert_array_equal(output[1], 0)
    assert all(np.isfinite(g).all() for g in gradients)
    np.testing.assert_array_equal(gradients[0][0, 2], 0)
    for gradient in gradients:
        np.testing.assert_array_equal(gradient[1], 0)
        assert np.abs(gradient[0]).max() > 0


@pytest.mark.parametrize("implementation", ANYWHERE)
def test_window_past_the_last_key_gives_zeros(rng, implementation):
    q, k, v = inputs(rng, queries=24, keys=9)
    mask = causal() & sliding_window(4)
    output = dot_product_attention(q, k, v, mask=mask, implementation=implementation)
    allowed = mask.materialize(24, 9)
    np.testing.assert_array_equal(output[:, 12:], 0)
    np.testing.assert_allclose(output, reference(q, k, v, allowed=allowed), atol=1e-5)


@pytest.mark.parametrize("argument", [0, 1, 2])
def test_gradient_is_the_finite_difference(rng, argument):
    arrays = [np.asarray(x, np.float64) for x in inputs(rng, queries=3, keys=4, kv_heads=2)]
    direction = rng.normal(size=arrays[argument].shape)
    weights = rng.normal(size=arrays[0].shape)
    step = 1e-5

    @jax.jit
    def loss(x):
        replaced = [x if i == argument else jnp.asarray(a) for i, a in enumerate(arrays)]
        attended = dot_product_attention(*replaced, logit_cap=3.0, implementation="einsum")
        return jnp.sum(attended * weights)

    with jax.enable_x64(True):
        x = jnp.asarray(arrays[argument])
        expected = (loss(x + step * direction) - loss(x - step * direction)) / (2 * step)
        actual = jnp.vdot(jax.grad(loss)(x), direction)
    np.testing.assert_allclose(actual, expected, rtol=1e-7)


def random_documents(rng, batch, length):
    return jnp.asarray(np.sort(rng.integers(0, 4, (batch, length)), axis=1))


def random_positions(rng, batch, length):
    return jnp.asarray(rng.integers(0, length, (batch, length)))


# Lengths that need several blocks and are no multiples of any.
LONG, LONGER = 600, 1100
BLOCKWISE_CASES = {
    "plain": (LONG, LONGER, {}),
    "more queries than keys": (LONGER, LONG, {}),
    "causal": (LONG, LONG, {"mask": lambda rng: causal()}),
    "causal, fewer keys": (LONGER, LONG, {"mask": lambda rng: causal()}),
    "causal, more keys": (LONG, LONGER, {"mask": lambda rng: causal()}),
    "causal window": (LONGER, LONGER, {"mask": lambda rng: causal() & sliding_window(90)}),
    "window": (LONGER, LONGER, {"mask": lambda rng: sliding_window(90)}),
    "window, more keys": (LONG, LONGER, {"mask": lambda rng: sliding_window(90)}),
    "window past the keys": (LONGER, LONG, {"mask": lambda rng: sliding_window(90)}),
    "segments": (LONG, LONG, {"mask": lambda rng: segments(random_documents(rng, 2, LONG))}),
    "segments across": (
        LONG,
        LONGER,
        {
            "mask": lambda rng: segments(
                random_documents(rng, 2, LONG), random_documents(rng, 2, LONGER)
            )
        },
    ),
    "padding": (
        LONG,
        LONGER,
        {"mask": lambda rng: padding(jnp.arange(LONGER) < jnp.array([[LONGER], [37]]))},
    ),
    "explicit": (
        LONG,
        LONGER,
        {"mask": lambda rng: explicit(jnp.asarray(rng.random((1, 2, LONG, LONGER)) < 0.5))},
    ),
    "query positions": (
        LONG,
        LONGER,
        {"mask": lambda rng: causal() & at_positions(random_positions(rng, 2, LONG))},
    ),
    "both positions": (
        LONG,
        LONGER,
        {
            "mask": lambda rng: (
                causal()
                & sliding_window(90)
                & at_positions(random_positions(rng, 2, LONG), random_positions(rng, 2, LONGER))
            )
        },
    ),
    "all rules": (
        LONG,
        LONG,
        {
            "mask": lambda rng: (
                causal()
                & sliding_window(200)
                & segments(random_documents(rng, 2, LONG))
                & padding(jnp.asarray(rng.random((2, LONG)) < 0.8))
            )
        },
    ),
    "explicit for each row": (
        LONG,
        LONGER,
        {"mask": lambda rng: explicit(jnp.asarray(rng.random((2, 1, LONG, LONGER)) < 0.5))},
    ),
    "logit cap": (LONG, LONG, {"mask": lambda rng: causal(), "logit_cap": 1.0, "scale": 1.3}),
}


GROUPED_CASES = [(case, 1) for case in ("causal", "explicit", "logit cap")]


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("case", "kv_heads"), [*((case, 2) for case in BLOCKWISE_CASES), *GROUPED_CASES]
)
def test_blockwise_is_einsum(rng, case, kv_heads):
    blockwise_is_einsum(rng, case, kv_heads)


@pytest.mark.parametrize(("case", "kv_heads"), [("all rules", 2), *GROUPED_CASES[1:]])
def test_blockwise_is_einsum_where_all_heads_are_computed_together(
    rng, monkeypatch, case, kv_heads
):
    monkeypatch.setattr("transformer.ops.blockwise.is_one_cpu", lambda: False)
    blockwise_is_einsum(rng, case, kv_heads)


def blockwise_is_einsum(rng, case, kv_heads):
    queries, keys, options = BLOCKWISE_CASES[case]
    options = {name: x(rng) if callable(x) else x for name, x in options.items()}
    q, k, v = inputs(rng, queries=queries, keys=keys, heads=2, kv_heads=kv_heads, head_dim=4)
    direction = normal(rng, *q.shape)

    def run(implementation):
        @jax.jit
        def both(q, k, v, mask):
            def attend(q, k, v):
                rest = {**options, "mask": mask, "implementation": implementation}
                return dot_product_attention(q, k, v, **rest)

            output, pull = jax.vjp(attend, q, k, v)
            return output, *pull(direction)

        return both(q, k, v, options.get("mask"))

    for actual, expected in zip(run("blockwise"), run("einsum"), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_every_rule_of_a_mask_over_small_blocks(rng, monkeypatch):
    monkeypatch.setattr("transformer.ops.blockwise.BLOCK_SIZE", 3)
    q, k, v = inputs(rng, kv_heads=2)
    mask = causal() & at_positions(random_positions(rng, 2, 5) + 3, random_positions(rng, 2, 7))
    mask &= segments(
        jnp.asarray(rng.integers(0, 2, (2, 5))), jnp.asarray(rng.integers(0, 2, (2, 7)))
    )
    mask &= padding(jnp.asarray(rng.random((2, 7)) < 0.8))
    mask &= explicit(jnp.asarray(rng.random((2, 4, 5, 7)) < 0.8))
    output = dot_product_attention(q, k, v, mask=mask, implementation="blockwise")
    expected = reference(q, k, v, allowed=mask.materialize(5, 7))
    np.testing.assert_allclose(output, expected, atol=1e-5)


def test_blockwise_refuses_bias(rng):
    q, k, v = inputs(rng)
    with pytest.raises(ValueError, match="bias"):
        dot_product_attention(q, k, v, bias=jnp.zeros((1, 1, 5, 7)), implementation="blockwise")


def test_blockwise_refuses_dropout(rng):
    q, k, v = inputs(rng)
    dropout = {"dropout_rate": 0.1, "dropout_key": jax.random.key(0)}
    with pytest.raises(ValueError, match="dropout"):
        dot_product_attention(q, k, v, **dropout, implementation="blockwise")


def test_unknown_implementation_names_the_known(rng):
    q, k, v = inputs(rng)
    with pytest.raises(ValueError, match=r"'flash'.*einsum"):
        dot_product_attention(q, k, v, implementation="flash")


def test_heads_must_divide(rng):
    q, k, v = inputs(rng, heads=4, kv_heads=3)
    with pytest.raises(ValueError, match=r"4 query heads.*3"):
        dot_product_attention(q, k, v)


def test_dropout_keeps_the_expectation(rng):
    q, k, v = inputs(rng, batch=1, queries=2, keys=3, heads=1, kv_heads=1, head_dim=2)
    keys = jax.random.split(jax.random.key(0), 4000)
    attend = functools.partial(dot_product_attention, q, k, v, dropout_rate=0.4)
    dropped = jax.jit(jax.vmap(lambda key: attend(dropout_key=key)))(keys)
    error = np.asarray(dropped.std(0)) / math.sqrt(len(keys))
    assert (error > 0).all()
    plain = dot_product_attention(q, k, v)
    assert (np.abs(dropped.mean(0) - plain) < 4 * error).all()


def test_dropout_needs_a_key(rng):
    q, k, v = inputs(rng)
    output = dot_product_attention(q, k, v, dropout_rate=0.4)
    np.testing.assert_array_equal(output, dot_product_attention(q, k, v))


def test_auto_takes_blockwise_for_long_sequences_only():
    assert choose_implementation(8, 8) == "einsum"
    assert choose_implementation(1, 1 << 24) == "einsum"
    assert choose_implementation(512, 511) == "einsum"
    assert choose_implementation(512, 512) == "blockwise"
    assert choose_implementation(2, 1 << 17) == "blockwise"
    assert choose_implementation(1 << 13, 1 << 13, has_bias=True) == "einsum"
    assert choose_implementation(1 << 13, 1 << 13, has_dropout=True) == "einsum"


@pytest.mark.parametrize("where", ["cpu", "gpu"])
def test_auto_takes_nothing_that_refuses(monkeypatch, where):
    """A bias, dropout or capped logits; traced, not computed."""
    monkeypatch.setattr(attention, "platform", lambda: where)
    x = jax.ShapeDtypeStruct((1, 512, 2, 8), jnp.bfloat16)
    bias = jax.ShapeDtypeStruct((1, 2, 512, 512), jnp.float32)

    def attended(x, bias, **options):
        return dot_product_attention(x, x, x, bias=bias, **options)

    dropout = {"dropout_rate": 0.1, "dropout_key": jax.random.key(0)}
    for given, options in ((None, dropout), (bias, dropout), (None, {"logit_cap": 2.0})):
        found = jax.eval_shape(functools.partial(attended, **options), x, given)
        assert found.shape == x.shape


def test_who_refuses_what():
    query = jax.ShapeDtypeStruct((1, 4, 2, 8), jnp.bfloat16)
    for name in ("einsum", "blockwise", "ring", "cudnn"):
        assert refusal(name, query, 4, Mask()) is None
    for name in ("blockwise", "ring"):
        for asked in ({"has_bias": True}, {"has_dropout": True}):
            assert "neither bias nor dropout" in refusal(name, query, 4, Mask(), **asked)
            assert refusal("einsum", query, 4, Mask(), **asked) is None
    assert "capped" in refusal("cudnn", query, 4, Mask(), has_cap=True)
    assert "arbitrary" in refusal("ring", query, 4, explicit(jnp.ones((1, 1, 4, 4), bool)))


def temporary_bytes(implementation, length):
    def loss(q, k, v):
        attended = dot_product_attention(q, k, v, mask=causal(), implementation=implementation)
        return jnp.sum(jnp.square(attended))

    x = jax.ShapeDtypeStruct((1, length, 2, 16), jnp.float32)
    compiled = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(x, x, x).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_blockwise_memory_is_linear():
    sizes = [temporary_bytes("blockwise", length) for length in (1024, 2048, 4096)]
    assert sizes[0] > 0
    assert sizes[1] < 2.3 * sizes[0]
    assert sizes[2] < 2.3 * sizes[1]


def test_einsum_memory_is_quadratic():
    assert temporary_bytes("einsum", 4096) > 3 * temporary_bytes("einsum", 2048)
