"""Attention one block at a time: memory linear in the sequence, with its own backward pass.

The softmax is computed online (Milakov and Gimelshein 2018; Rabe and Staats 2021) and its weights
are recomputed in the backward pass (Dao et al. 2022, algorithm 4), so that no array of size T x S
is ever held. Blocks that the causal rule or a window leaves empty are not visited.

A block holds all rows and heads, so that an accelerator has enough to do at once. A CPU computes
one head of keys after another: the scores of a block then stay in the cache of its core. Otherwise
each operation of the softmax would write them to memory and read them again.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

from transformer.ops.blocks import (
    Plan,
    Rows,
    add_gradients,
    attend_blocks,
    even_block,
    padded_heads,
    padded_mask,
    weighted_gradient,
)
from transformer.ops.masks import Mask
from transformer.ops.platforms import is_one_cpu
from transformer.traced import Number, is_zero

# Queries and keys of a block. On two cores of a CPU the products of smaller ones are not shared
# well: 256 takes up to 1.8 times as long, though 0.9 times on one core. Measured; see LOG.md.
BLOCK_SIZE = 512
# The row and the key head that a call computes, of those that the mask describes; None: all.
_Place = tuple[Int[Array, ""], Int[Array, ""]] | None


def blockwise_refusal(*, has_bias: bool, has_dropout: bool) -> str | None:
    """Explains why blockwise attention does not support a call; None if it does."""
    return "it supports neither bias nor dropout" if has_bias or has_dropout else None


def blockwise_attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K H"],
    *,
    bias: Float[Array, "#B #N T S"] | None,
    mask: Mask,
    scale: float,
    logit_cap: float | None,
    dropout_rate: Number,
    dropout_key: Key[Array, ""] | None,
) -> Float[Array, "B T N H"]:
    """`einsum_attention` in memory linear in T and S.

    Raises:
        ValueError: if there is a bias or dropout.
    """
    refusal = blockwise_refusal(
        has_bias=bias is not None, has_dropout=dropout_key is not None and not is_zero(dropout_rate)
    )
    if refusal is not None:
        raise ValueError(f"blockwise attention cannot do this: {refusal}.")
    num_queries, num_heads = query.shape[1:3]
    num_keys, num_kv_heads = key.shape[1:3]
    query_block, key_block = even_block(num_queries, BLOCK_SIZE), even_block(num_keys, BLOCK_SIZE)
    plan = Plan(logit_cap, query_block, key_block, num_keys, num_heads // num_kv_heads)

    query = padded_heads(query * scale, query_block)
    key, value = padded_heads(key, key_block), padded_heads(value, key_block)
    mask = padded_mask(mask, -num_queries % query_block, -num_keys % key_block)
    attend = _attend_by_head if is_one_cpu() else _attend
    output: Array = attend(plan, query, key, value, mask)
    return output.transpose(0, 2, 1, 3)[:, :num_queries]


def _attend_by_head(plan: Plan, query: Array, key: Array, value: Array, mask: Mask) -> Array:
    """The same as `_attend`, one key head of one row after another."""
    batch, num_kv_heads = key.shape[:2]

    def alone(x: Array) -> Array:
        # [B N T H] -> [BK 1 G T H], [B K S H] -> [BK 1 1 S H]
        return x.reshape(batch * num_kv_heads, 1, -1, *x.shape[2:])

    def one(index_and_arrays):
        index, *arrays = index_and_arrays
        place = index // num_kv_heads, index % num_kv_heads
        return _attend(plan, *arrays, mask, place)

    heads = jnp.arange(batch * num_kv_heads)
    return lax.map(one, (heads, alone(query), alone(key), alone(value))).reshape(query.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(
    plan: Plan, query: Array, key: Array, value: Array, mask: Mask, place: _Place = None
) -> Array:
    """Attention in the layouts `[B, N, T, H]` and `[B, K, S, H]`, padded to whole blocks."""
    here = _at_place(plan, mask, place)
    return attend_blocks(plan, query, key, value, here, dtype=query.dtype)[0]


def _attend_forward(
    plan: Plan, query: Array, key: Array, value: Array, mask: Mask, place: _Place = None
):
    here = _at_place(plan, mask, place)
    output, log_normalizer = attend_blocks(plan, query, key, value, here, dtype=query.dtype)
    # The whole mask, which all heads share, is kept once.
    return output, (query, key, value, mask, place, output, log_normalizer)


def _attend_backward(plan: Plan, residuals, gradient: Array):
    query, key, value, mask, place, output, log_normalizer = residuals
    mask = _at_place(plan, mask, place)
    inner = weighted_gradient(gradient, output)
    zeros = (jnp.zeros(key.shape, jnp.float32), jnp.zeros(value.shape, jnp.float32))
    rows = Rows(query, gradient, log_normalizer, inner)
    query_gradient, key_gradient, value_gradient = add_gradients(
        plan, rows, key, value, mask, zeros
    )
    return (
        query_gradient.astype(query.dtype),
        key_gradient.astype(key.dtype),
        value_gradient.astype(value.dtype),
        None,
        None,
    )


_attend.defvjp(_attend_forward, _attend_backward)


def _at_place(plan: Plan, mask: Mask, place: _Place) -> Mask:
    """The part of the mask for one row and one key head."""
    if place is None:
        return mask
    row, head = place

    def of_row(values: Array | None) -> Array | None:
        if values is None or values.shape[0] == 1:
            return values
        return lax.dynamic_slice_in_dim(values, row, 1)

    allowed = of_row(mask.allowed)
    if allowed is not None and allowed.shape[1] > 1:
        size = plan.head_groups
        allowed = lax.dynamic_slice_in_dim(allowed, head * size, size, axis=1)
    return dataclasses.replace(
        mask,
        query_positions=of_row(mask.query_positions),
        key_positions=of_row(mask.key_positions),
        query_segments=of_row(mask.query_segments),
        key_segments=of_row(mask.key_segments),
        valid_keys=of_row(mask.valid_keys),
        key_lengths=of_row(mask.key_lengths),
        allowed=allowed,
    )
