"""Kernels of the hardware's makers give what einsum gives, or say why they cannot."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import normal
from transformer.ops import attention, splash
from transformer.ops.attention import dot_product_attention, resolved
from transformer.ops.masks import (
    Mask,
    at_positions,
    causal,
    explicit,
    padding,
    padding_behind,
    segments,
    sliding_window,
)
from transformer.ops.splash import splash_attention, splash_refusal

LENGTH, HEADS, KV_HEADS, SIZE = 256, 4, 2, 16
RNG = np.random.default_rng(0)
QUERY = normal(RNG, 2, LENGTH, HEADS, SIZE)
KEY, VALUE = (normal(RNG, 2, LENGTH, KV_HEADS, SIZE) for _ in range(2))
DOCUMENTS = jnp.asarray(np.repeat([[0, 1], [0, 0]], LENGTH // 2, axis=1))
REAL = jnp.arange(LENGTH)[None] < jnp.asarray([[LENGTH], [200]])
BETWEEN = (jnp.arange(LENGTH) % 128 > 100)[None] & jnp.ones((2, 1), bool)
PLAIN = {"bias": None, "dropout_rate": 0.0, "dropout_key": None}
CASES = {
    "causal": (causal(), None),
    "all, capped": (Mask(), 2.0),
    "window": (causal() & sliding_window(100), None),
    "window on both sides": (sliding_window(40), None),
    "documents": (causal() & segments(DOCUMENTS), None),
    "padding": (padding(REAL), None),
    "padding by lengths": (causal() & padding_behind(jnp.array([200, 0])), None),
    "padding in front": (causal() & padding(~REAL), None),
    "padding in front, window": (causal() & sliding_window(60) & padding(BETWEEN), None),
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", CASES)
def test_splash_is_einsum(name):
    """Interpreted, as there is no TPU; forward and backward."""
    mask, cap = CASES[name]
    options = {"scale": 0.3, "logit_cap": cap, "mask": mask}

    def total(function, query, key, value):
        attended = function(query, key, value)
        return jnp.sum(attended * jnp.cos(jnp.arange(SIZE))), attended

    ours = functools.partial(splash_attention, **options, **PLAIN, interpret=True)
    reference = functools.partial(dot_product_attention, **options, implementation="einsum")
    results = []
    for function in (ours, reference):
        both = jax.jit(
            jax.value_and_grad(functools.partial(total, function), argnums=(0, 1, 2), has_aux=True)
        )
        (_, attended), gradients = both(QUERY, KEY, VALUE)
        results.append((attended, *gradients))
    for found, expected in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_splash_is_lowered_for_tpus():
    def attend(query, key, value):
        return dot_product_attention(query, key, value, mask=causal(), implementation="splash")

    exported = jax.export.export(jax.jit(attend), platforms=["tpu"])(QUERY, KEY, VALUE)
    assert "tpu_custom_call" in exported.mlir_module()


def test_heads_that_splash_shares_are_not_copied():
    """Its kernels read keys and values of K heads, and write the gradients of so many."""

    def attend(query, key, value):
        return dot_product_attention(query, key, value, mask=causal(), implementation="splash")

    def total(*arrays):
        return jnp.sum(attend(*arrays))

    shared = "x".join(map(str, (2, KV_HEADS, LENGTH, SIZE)))
    for function, count in ((attend, 2), (jax.grad(total, argnums=(1, 2)), 4)):
        exported = jax.export.export(jax.jit(function), platforms=["tpu"])(QUERY, KEY, VALUE)
        calls = [line for line in exported.mlir_module().splitlines() if "@tpu_custom_call" in line]
        assert calls
        # The last kernel's keys and values, in the backward pass with their gradients.
        assert max(line.count(f"tensor<{shared}xf32>") for line in calls) == count


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mask": explicit(jnp.ones((1, 1, LENGTH, LENGTH), bool))}, "arbitrary"),
        ({"mask": causal() & at_positions(jnp.zeros((2, LENGTH), int))}, "positions"),
        ({"bias": jnp.zeros((1, 1, LENGTH, LENGTH))}, "bias"),
        ({"dropout_rate": 0.5, "dropout_key": jax.random.key(0)}, "dropout"),
    ],
    ids=["mask", "positions", "bias", "dropout"],
)
def test_what_splash_cannot_do_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        dot_product_attention(QUERY, KEY, VALUE, **options, implementation="splash")


KINDS = "documents come with padding"
SIDES = "a window on both sides"
UNEQUAL = "not as many queries"
RULES = {
    "nothing": (Mask(), None, None),
    "causal": (causal(), None, UNEQUAL),
    "window": (causal() & sliding_window(9), None, UNEQUAL),
    "both sides": (sliding_window(9), None, UNEQUAL),
    "padding": (padding(REAL), None, None),
    "lengths": (padding_behind(jnp.array([200, 0])), None, None),
    "padding, window": (causal() & sliding_window(9) & padding(REAL), None, UNEQUAL),
    "padding, both sides": (sliding_window(9) & padding(REAL), SIDES, SIDES),
    "lengths, both sides": (sliding_window(9) & padding_behind(jnp.array([9, 9])), SIDES, SIDES),
    "documents": (segments(DOCUMENTS), None, KINDS),
    "documents, padding": (segments(DOCUMENTS) & padding(REAL), KINDS, KINDS),
    "documents, lengths": (segments(DOCUMENTS) & padding_behind(jnp.array([9, 9])), KINDS, KINDS),
    "places of queries": (Mask(query_positions=DOCUMENTS), "positions", "positions"),
    "places of keys": (Mask(key_positions=DOCUMENTS), "positions", "positions"),
    "pairs": (Mask(allowed=jnp.ones((1, 1, 1, 1), bool)), "arbitrary", "arbitrary"),
}


@pytest.mark.parametrize("name", RULES)
def test_which_rules_splash_knows(name):
    """Of 256 queries and so many keys, and of 128 queries."""
    mask, *reasons = RULES[name]
    for num_queries, reason in zip((LENGTH, LENGTH // 2), reasons, strict=True):
        said = splash_refusal(num_queries, LENGTH, mask, has_bias=False, has_dropout=False)
        assert said is None if reason is None else reason in said


def test_which_lengths_splash_knows():
    for num_queries, num_keys in ((128, 127), (127, 128), (64, 64)):
        said = splash_refusal(num_queries, num_keys, Mask(), has_bias=False, has_dropout=False)
        assert said == f"{num_queries} queries and {num_keys} keys are not multiples of 128"


BLIND = CASES | {
    "padding in front, seen by all": (padding(~REAL), None),
    "padding by lengths, seen by all": (padding_behind(jnp.array([200, 0])), None),
    "padding given twice": (causal() & padding(~REAL) & padding_behind(jnp.array([9, 220])), None),
}


@pytest.mark.parametrize("name", BLIND)
def test_outputs_of_queries_that_see_no_key_are_zeros(name):
    mask = BLIND[name][0]
    allowed = mask.materialize(LENGTH, LENGTH)
    sees = np.ones((2, LENGTH)) if allowed is None else np.any(allowed, axis=(1, 3))
    found = splash._zero_where_blind(jnp.ones((2, LENGTH, 1, 1)), mask, LENGTH)
    np.testing.assert_array_equal(found[:, :, 0, 0], np.broadcast_to(sees, (2, LENGTH)))


def test_numbers_of_segments():
    assert splash._segments(causal(), 2, LENGTH, LENGTH) is None
    mask = segments(DOCUMENTS.astype(jnp.int8), (DOCUMENTS + 1).astype(jnp.int8))
    query, key = splash._segments(mask, 2, LENGTH, LENGTH)
    assert query.dtype == key.dtype == jnp.int32
    np.testing.assert_array_equal(query, DOCUMENTS)
    np.testing.assert_array_equal(key, DOCUMENTS + 1)
    query, key = splash._segments(padding(REAL), 2, LENGTH // 2, LENGTH)
    assert query.shape == (2, LENGTH // 2)
    np.testing.assert_array_equal(key == query[0, 0], REAL)


def test_splash_is_asked_for_all_heads_and_the_largest_blocks_that_divide(monkeypatch):
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels

    asked = []

    def made(mask, *, block_sizes, **_):
        asked.append((mask.shape, block_sizes))
        return lambda query, key, value: query

    monkeypatch.setattr(kernels, "make_splash_mha", made)
    arrays = [jax.ShapeDtypeStruct((1, n, 3, 8), jnp.float32) for n in (1024, 768, 768)]
    jax.eval_shape(
        functools.partial(splash_attention, mask=Mask(), scale=1.0, logit_cap=None, **PLAIN),
        *arrays,
    )
    queries, keys = 512, 384
    sizes = kernels.BlockSizes(
        block_q=queries,
        block_kv=keys,
        block_q_dkv=queries,
        block_kv_dkv=keys,
        block_q_dq=queries,
        block_kv_dq=keys,
    )
    assert asked == [((3, 1024, 768), sizes)]
    assert [splash._block(length) for length in (128, 256, 640, 896)] == [128, 256, 128, 128]


def test_lengths_and_numbers_that_are_refused():
    short = [x[:, :100] for x in (QUERY, KEY, VALUE)]
    with pytest.raises(ValueError, match="multiples of 128"):
        dot_product_attention(*short, implementation="splash")
    with pytest.raises(ValueError, match="float32"):
        dot_product_attention(QUERY, KEY, VALUE, implementation="cudnn")
    half = [x.astype(jnp.bfloat16) for x in (QUERY, KEY, VALUE)]
    with pytest.raises(ValueError, match="capped"):
        dot_product_attention(*half, logit_cap=1.0, implementation="cudnn")
    dropping = {"dropout_rate": 0.5, "dropout_key": jax.random.key(0)}
    with pytest.raises(ValueError, match="dropout"):
        dot_product_attention(*half, **dropping, implementation="cudnn")


@pytest.mark.parametrize(
    ("device", "dtype", "has_bias", "chosen"),
    [
        ("cpu", jnp.bfloat16, False, "einsum"),
        ("gpu", jnp.bfloat16, False, "cudnn"),
        ("gpu", jnp.float32, False, "einsum"),
        ("gpu", jnp.bfloat16, True, "cudnn"),
        ("tpu", jnp.float32, False, "splash"),
        ("tpu", jnp.float32, True, "einsum"),
    ],
)
def test_the_kernel_of_the_device(monkeypatch, device, dtype, has_bias, chosen):
    monkeypatch.setattr(attention.jax, "default_backend", lambda: device)
    query = jax.ShapeDtypeStruct(QUERY.shape, dtype)
    assert resolved("auto", query, LENGTH, causal(), has_bias=has_bias) == chosen
    assert resolved("blockwise", query, LENGTH, causal(), has_bias=has_bias) == "blockwise"
