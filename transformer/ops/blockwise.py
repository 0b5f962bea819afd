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
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

from transformer.ops.masks import Mask
from transformer.ops.platforms import is_one_cpu
from transformer.traced import Number, is_zero

# Queries and keys of a block. The scores of one head take 512 KB on a CPU.
BLOCK_SIZE = 512
CPU_QUERY_BLOCK = 256
# The row and the key head that a call computes, of those that the mask describes; None: all.
_Place = tuple[Int[Array, ""], Int[Array, ""]] | None


class _Plan(NamedTuple):
    """What is known at compile time."""

    logit_cap: float | None
    query_block: int
    key_block: int
    num_keys: int
    head_groups: int


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
    by_head = is_one_cpu()
    query_block = _even_block(num_queries, CPU_QUERY_BLOCK if by_head else BLOCK_SIZE)
    key_block = _even_block(num_keys, BLOCK_SIZE)
    plan = _Plan(logit_cap, query_block, key_block, num_keys, num_heads // num_kv_heads)

    # Heads before positions, so that each block is a plain batch of matrix products.
    query = _pad(query * scale, query_block).transpose(0, 2, 1, 3)
    key = _pad(key, key_block).transpose(0, 2, 1, 3)
    value = _pad(value, key_block).transpose(0, 2, 1, 3)
    mask = _pad_mask(mask, query_block, key_block)
    attend = _attend_by_head if by_head else _attend
    output: Array = attend(plan, query, key, value, mask)
    return output.transpose(0, 2, 1, 3)[:, :num_queries]


def _attend_by_head(plan: _Plan, query: Array, key: Array, value: Array, mask: Mask) -> Array:
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
    plan: _Plan, query: Array, key: Array, value: Array, mask: Mask, place: _Place = None
) -> Array:
    """Attention in the layouts `[B, N, T, H]` and `[B, K, S, H]`, padded to whole blocks."""
    return _forward(plan, query, key, value, _at_place(plan, mask, place))[0]


def _forward(plan: _Plan, query: Array, key: Array, value: Array, mask: Mask):
    batch, num_heads, num_queries, head_dim = query.shape

    def one_query_block(index):
        query_start = index * plan.query_block
        queries = _rows(query, query_start, plan.query_block)

        def visit(key_index, carry):
            maximum, total, output = carry
            logits, allowed, _ = _logits(plan, queries, key, mask, query_start, key_index)
            logits = logits if allowed is None else jnp.where(allowed, logits, -jnp.inf)
            higher = jnp.maximum(maximum, jnp.max(logits, axis=-1))
            # Rows that have seen nothing yet: keep the exponent finite.
            shift = jnp.where(jnp.isneginf(higher), 0.0, higher)
            weights = jnp.exp(logits - shift[..., None])
            decay = jnp.exp(maximum - shift)
            values = _rows(value, key_index * plan.key_block, plan.key_block)
            output = output * decay[..., None] + _weighted(plan, weights, values)
            return higher, total * decay + jnp.sum(weights, axis=-1), output

        rows = (batch, num_heads, plan.query_block)
        first = (
            jnp.full(rows, -jnp.inf),
            jnp.zeros(rows),
            jnp.zeros((*rows, head_dim)),
        )
        lower, upper = _key_range(plan, mask, query_start, key.shape[2])
        maximum, total, output = lax.fori_loop(lower, upper, visit, first)
        seen = total > 0.0
        output = output / jnp.where(seen, total, 1.0)[..., None]
        # +inf makes the weights of a row that saw nothing zero in the backward pass.
        log_normalizer = jnp.where(seen, maximum + jnp.log(jnp.where(seen, total, 1.0)), jnp.inf)
        return output.astype(query.dtype), log_normalizer

    outputs, log_normalizers = lax.map(one_query_block, jnp.arange(num_queries // plan.query_block))
    output = jnp.moveaxis(outputs, 0, 2).reshape(query.shape)
    log_normalizer = jnp.moveaxis(log_normalizers, 0, 2).reshape(query.shape[:3])
    return output, log_normalizer


def _attend_forward(
    plan: _Plan, query: Array, key: Array, value: Array, mask: Mask, place: _Place = None
):
    here = _at_place(plan, mask, place)
    output, log_normalizer = _forward(plan, query, key, value, here)
    # The whole mask, which all heads share, is kept once.
    return output, (query, key, value, mask, place, output, log_normalizer)


def _attend_backward(plan: _Plan, residuals, gradient: Array):
    query, key, value, mask, place, output, log_normalizer = residuals
    mask = _at_place(plan, mask, place)
    inner = jnp.sum(gradient.astype(jnp.float32) * output.astype(jnp.float32), axis=-1)

    def one_query_block(carry, index):
        query_start = index * plan.query_block
        queries = _rows(query, query_start, plan.query_block)
        gradients = _rows(gradient, query_start, plan.query_block)
        normalizers = _rows(log_normalizer, query_start, plan.query_block)
        inners = _rows(inner, query_start, plan.query_block)

        def visit(key_index, carry):
            query_gradient, key_gradient, value_gradient = carry
            key_start = key_index * plan.key_block
            logits, allowed, slope = _logits(plan, queries, key, mask, query_start, key_index)
            weights = jnp.exp(logits - normalizers[..., None])
            weights = weights if allowed is None else jnp.where(allowed, weights, 0.0)
            keys = _rows(key, key_start, plan.key_block)
            values = _rows(value, key_start, plan.key_block)
            weight_gradient = _scores(plan, gradients, values)
            logit_gradient = weights * (weight_gradient - inners[..., None]) * slope
            query_gradient = query_gradient + _weighted(plan, logit_gradient, keys)
            key_gradient = _add_rows(
                key_gradient, _gathered(plan, logit_gradient, queries), key_start
            )
            value_gradient = _add_rows(
                value_gradient, _gathered(plan, weights, gradients), key_start
            )
            return query_gradient, key_gradient, value_gradient

        zeros = jnp.zeros(queries.shape, jnp.float32)
        lower, upper = _key_range(plan, mask, query_start, key.shape[2])
        query_gradient, *carry = lax.fori_loop(lower, upper, visit, (zeros, *carry))
        return tuple(carry), query_gradient

    zeros = (jnp.zeros(key.shape, jnp.float32), jnp.zeros(value.shape, jnp.float32))
    blocks = jnp.arange(query.shape[2] // plan.query_block)
    (key_gradient, value_gradient), query_gradients = lax.scan(one_query_block, zeros, blocks)
    query_gradient = jnp.moveaxis(query_gradients, 0, 2).reshape(query.shape)
    return (
        query_gradient.astype(query.dtype),
        key_gradient.astype(key.dtype),
        value_gradient.astype(value.dtype),
        None,
        None,
    )


_attend.defvjp(_attend_forward, _attend_backward)


def _logits(plan: _Plan, queries: Array, key: Array, mask: Mask, query_start, key_index):
    """Logits of one block, where they are allowed (None: everywhere), and the slope of the cap."""
    key_start = key_index * plan.key_block
    logits = _scores(plan, queries, _rows(key, key_start, plan.key_block))
    slope = 1.0
    if plan.logit_cap is not None:
        squashed = jnp.tanh(logits / plan.logit_cap)
        logits, slope = plan.logit_cap * squashed, 1.0 - jnp.square(squashed)
    allowed = mask.block(query_start, plan.query_block, key_start, plan.key_block)
    if key.shape[2] > plan.num_keys:
        real = key_start + jnp.arange(plan.key_block) < plan.num_keys
        allowed = real if allowed is None else real & allowed
    return logits, allowed, slope


def _key_range(plan: _Plan, mask: Mask, query_start, padded_keys: int):
    """The key blocks that some query of the block may see."""
    num_blocks = padded_keys // plan.key_block
    if mask.query_positions is not None or mask.key_positions is not None:
        return 0, num_blocks
    lower, upper = 0, num_blocks
    if mask.causal:
        last = query_start + plan.query_block - 1
        upper = jnp.minimum(last // plan.key_block + 1, num_blocks)
    if mask.window is not None:
        lower = jnp.maximum(query_start - mask.window + 1, 0) // plan.key_block
        if not mask.causal:
            last = query_start + plan.query_block - 1 + mask.window - 1
            upper = jnp.minimum(last // plan.key_block + 1, num_blocks)
    return lower, upper


def _grouped(plan: _Plan, x: Array) -> Array:
    """[B N t X] -> [B K G*t X], so that a group of query heads is one matrix."""
    batch, num_heads, rows, size = x.shape
    return x.reshape(batch, num_heads // plan.head_groups, plan.head_groups * rows, size)


def _scores(plan: _Plan, queries: Array, keys: Array) -> Array:
    """[B N t H], [B K s H] -> [B N t s]."""
    scores = jnp.einsum(
        "bkth,bksh->bkts", _grouped(plan, queries), keys, preferred_element_type=jnp.float32
    )
    return scores.reshape(*queries.shape[:3], keys.shape[2])


def _weighted(plan: _Plan, weights: Array, values: Array) -> Array:
    """[B N t s], [B K s H] -> [B N t H]."""
    grouped = _grouped(plan, weights).astype(values.dtype)
    output = jnp.einsum("bkts,bksh->bkth", grouped, values, preferred_element_type=jnp.float32)
    return output.reshape(*weights.shape[:3], values.shape[3])


def _gathered(plan: _Plan, weights: Array, rows: Array) -> Array:
    """[B N t s], [B N t H] -> [B K s H]."""
    grouped = _grouped(plan, weights).astype(rows.dtype)
    return jnp.einsum(
        "bkts,bkth->bksh", grouped, _grouped(plan, rows), preferred_element_type=jnp.float32
    )


def _rows(x: Array, start, size: int) -> Array:
    return lax.dynamic_slice_in_dim(x, start, size, axis=2)


def _add_rows(x: Array, rows: Array, start) -> Array:
    return lax.dynamic_update_slice_in_dim(x, _rows(x, start, rows.shape[2]) + rows, start, axis=2)


def _even_block(length: int, largest: int) -> int:
    """The smallest block size that needs no more blocks than the largest size."""
    return -(-length // -(-length // largest))


def _pad(x: Array, multiple: int, axis: int = 1) -> Array:
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, -x.shape[axis] % multiple)
    return jnp.pad(x, widths)


def _pad_mask(mask: Mask, query_block: int, key_block: int) -> Mask:
    """The mask with its arrays padded like queries and keys."""

    def padded(values, multiple, axis=1):
        return None if values is None else _pad(values, multiple, axis)

    return Mask(
        query_positions=padded(mask.query_positions, query_block),
        key_positions=padded(mask.key_positions, key_block),
        query_segments=padded(mask.query_segments, query_block),
        key_segments=padded(mask.key_segments, key_block),
        valid_keys=padded(mask.valid_keys, key_block),
        key_lengths=mask.key_lengths,
        allowed=padded(padded(mask.allowed, query_block, 2), key_block, 3),
        causal=mask.causal,
        window=mask.window,
    )


def _at_place(plan: _Plan, mask: Mask, place: _Place) -> Mask:
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
