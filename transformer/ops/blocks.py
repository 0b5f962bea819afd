"""Attention of blocks and its backward pass: what `blockwise` and `ring` share.

The softmax is computed online (Milakov and Gimelshein 2018; Rabe and Staats 2021) and its weights
are recomputed in the backward pass (Dao et al. 2022, algorithm 4).
"""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from transformer.ops.masks import Mask, Start

# The numbers that the mask gives the first query and the first key of the arrays.
Origin = tuple[Start, Start]
_WHOLE: Origin = (0, 0)


class Plan(NamedTuple):
    """What is known at compile time.

    Attributes:
        logit_cap: squashes the logits.
        query_block: queries of a block.
        key_block: keys of a block.
        num_keys: keys that are no padding.
        head_groups: query heads for each key head, N / K.
    """

    logit_cap: float | None
    query_block: int
    key_block: int
    num_keys: int
    head_groups: int


def attend_blocks(
    plan: Plan,
    query: Float[Array, "B N T H"],
    key: Float[Array, "B K S H"],
    value: Float[Array, "B K S H"],
    mask: Mask,
    origin: Origin = _WHOLE,
    *,
    dtype: DTypeLike,
) -> tuple[Float[Array, "B N T H"], Float[Array, "B N T"]]:
    """Attention of whole blocks, and the logarithm of what normalised each query's weights.

    Args:
        plan: what is known at compile time.
        query: the queries, scaled and padded to whole blocks.
        key: the keys, padded to whole blocks.
        value: the values, likewise.
        mask: the mask, also of what lies before and after these arrays.
        origin: where they begin in it.
        dtype: of the output.

    Returns:
        The output, zero for queries that see no key, and their logarithm, which is then +inf: that
        makes their weights zero in the backward pass.
    """
    batch, num_heads, num_queries, head_dim = query.shape

    def one_query_block(index):
        query_start = index * plan.query_block
        queries = _rows(query, query_start, plan.query_block)

        def visit(key_index, carry):
            maximum, total, output = carry
            logits, allowed, _ = _logits(plan, queries, key, mask, origin, query_start, key_index)
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
        lower, upper = _key_range(plan, mask, origin, query_start, key.shape[2])
        maximum, total, output = lax.fori_loop(lower, upper, visit, first)
        seen = total > 0.0
        output = output / jnp.where(seen, total, 1.0)[..., None]
        log_normalizer = jnp.where(seen, maximum + jnp.log(jnp.where(seen, total, 1.0)), jnp.inf)
        return output.astype(dtype), log_normalizer

    outputs, log_normalizers = lax.map(one_query_block, jnp.arange(num_queries // plan.query_block))
    output = jnp.moveaxis(outputs, 0, 2).reshape(query.shape)
    log_normalizer = jnp.moveaxis(log_normalizers, 0, 2).reshape(query.shape[:3])
    return output, log_normalizer


class Rows(NamedTuple):
    """What the backward pass knows of each query.

    Attributes:
        query: the scaled queries.
        gradient: that of their outputs.
        log_normalizer: as `attend_blocks` returns it.
        inner: see `weighted_gradient`.
    """

    query: Float[Array, "B N T H"]
    gradient: Float[Array, "B N T H"]
    log_normalizer: Float[Array, "B N T"]
    inner: Float[Array, "B N T"]


def weighted_gradient(
    gradient: Float[Array, "B N T H"], output: Float[Array, "B N T H"]
) -> Float[Array, "B N T"]:
    """The mean of the weights' gradients, weighted by them (Dao et al. 2022, appendix B.2)."""
    return jnp.sum(gradient.astype(jnp.float32) * output.astype(jnp.float32), axis=-1)


def add_gradients(
    plan: Plan,
    rows: Rows,
    key: Float[Array, "B K S H"],
    value: Float[Array, "B K S H"],
    mask: Mask,
    so_far: tuple[Float[Array, "B K S H"], Float[Array, "B K S H"]],
    origin: Origin = _WHOLE,
) -> tuple[Float[Array, "B N T H"], Float[Array, "B K S H"], Float[Array, "B K S H"]]:
    """Gradients in float32 of queries, keys and values; those of keys and values are added up.

    Arguments as in `attend_blocks`; the normalisation may be that of more keys than are here.

    Args:
        plan: what is known at compile time.
        rows: what is known of the queries.
        key: the keys.
        value: the values.
        mask: the mask.
        so_far: the gradients of keys and values, to which those of these queries are added.
        origin: where the arrays begin in the mask.
    """
    query = rows.query

    def one_query_block(carry, index):
        query_start = index * plan.query_block
        queries = _rows(query, query_start, plan.query_block)
        gradients = _rows(rows.gradient, query_start, plan.query_block)
        normalizers = _rows(rows.log_normalizer, query_start, plan.query_block)
        inners = _rows(rows.inner, query_start, plan.query_block)

        def visit(key_index, carry):
            query_gradient, key_gradient, value_gradient = carry
            key_start = key_index * plan.key_block
            logits, allowed, slope = _logits(
                plan, queries, key, mask, origin, query_start, key_index
            )
            weights = jnp.exp(logits - normalizers[..., None])
            weights = weights if allowed is None else jnp.where(allowed, weights, 0.0)
            keys = _rows(key, key_start, plan.key_block)
            values = _rows(value, key_start, plan.key_block)
            weight_gradient = _scores(plan, gradients, values)
            logit_gradient = weights * (weight_gradient - inners[..., None]) * slope
            query_gradient = query_gradient + _weighted(plan, logit_gradient, keys)
            key_gradient = _add_columns(
                key_gradient, _gathered(plan, queries, logit_gradient), key_start
            )
            value_gradient = _add_columns(
                value_gradient, _gathered(plan, gradients, weights), key_start
            )
            return query_gradient, key_gradient, value_gradient

        zeros = jnp.zeros(queries.shape, jnp.float32)
        lower, upper = _key_range(plan, mask, origin, query_start, key.shape[2])
        query_gradient, *carry = lax.fori_loop(lower, upper, visit, (zeros, *carry))
        return tuple(carry), query_gradient

    blocks = jnp.arange(query.shape[2] // plan.query_block)
    first = so_far[0].swapaxes(2, 3), so_far[1].swapaxes(2, 3)
    (key_gradient, value_gradient), query_gradients = lax.scan(one_query_block, first, blocks)
    query_gradient = jnp.moveaxis(query_gradients, 0, 2).reshape(query.shape)
    return query_gradient, key_gradient.swapaxes(2, 3), value_gradient.swapaxes(2, 3)


def _logits(
    plan: Plan, queries: Array, key: Array, mask: Mask, origin: Origin, query_start, key_index
):
    """Logits of one block, where they are allowed (None: everywhere), and the slope of the cap."""
    key_start = key_index * plan.key_block
    logits = _scores(plan, queries, _rows(key, key_start, plan.key_block))
    slope = 1.0
    if plan.logit_cap is not None:
        squashed = jnp.tanh(logits / plan.logit_cap)
        logits, slope = plan.logit_cap * squashed, 1.0 - jnp.square(squashed)
    starts = origin[0] + query_start, origin[1] + key_start
    allowed = mask.block(starts[0], plan.query_block, starts[1], plan.key_block)
    if key.shape[2] > plan.num_keys:
        real = key_start + jnp.arange(plan.key_block) < plan.num_keys
        allowed = real if allowed is None else real & allowed
    return logits, allowed, slope


def _key_range(plan: Plan, mask: Mask, origin: Origin, query_start, padded_keys: int):
    """The key blocks that some query of the block may see; none if the second is not larger."""
    num_blocks = padded_keys // plan.key_block
    if mask.query_positions is not None or mask.key_positions is not None:
        return 0, num_blocks
    lower, upper = 0, num_blocks
    # Counted from the first key of the array.
    first = query_start + (origin[0] - origin[1])
    last = first + plan.query_block - 1
    if mask.causal:
        upper = jnp.minimum(last // plan.key_block + 1, num_blocks)
    if mask.window is not None:
        lower = jnp.maximum(first - mask.window + 1, 0) // plan.key_block
        if not mask.causal:
            upper = jnp.minimum((last + mask.window - 1) // plan.key_block + 1, num_blocks)
    return lower, upper


def _grouped(plan: Plan, x: Array) -> Array:
    """[B N t X] -> [B K G*t X], so that a group of query heads is one matrix."""
    batch, num_heads, rows, size = x.shape
    return x.reshape(batch, num_heads // plan.head_groups, plan.head_groups * rows, size)


def _scores(plan: Plan, queries: Array, keys: Array) -> Array:
    """[B N t H], [B K s H] -> [B N t s]."""
    scores = jnp.einsum(
        "bkth,bksh->bkts", _grouped(plan, queries), keys, preferred_element_type=jnp.float32
    )
    return scores.reshape(*queries.shape[:3], keys.shape[2])


def _weighted(plan: Plan, weights: Array, values: Array) -> Array:
    """[B N t s], [B K s H] -> [B N t H]."""
    grouped = _grouped(plan, weights).astype(values.dtype)
    output = jnp.einsum("bkts,bksh->bkth", grouped, values, preferred_element_type=jnp.float32)
    return output.reshape(*weights.shape[:3], values.shape[3])


def _gathered(plan: Plan, rows: Array, weights: Array) -> Array:
    """[B N t H], [B N t s] -> [B K H s].

    A CPU's library multiplies this three times as fast as the same with H last, for which it would
    have to transpose the weights instead of the rows.
    """
    grouped = _grouped(plan, weights).astype(rows.dtype)
    return jnp.einsum(
        "bkth,bkts->bkhs", _grouped(plan, rows), grouped, preferred_element_type=jnp.float32
    )


def _rows(x: Array, start, size: int) -> Array:
    return lax.dynamic_slice_in_dim(x, start, size, axis=2)


def _add_columns(x: Array, columns: Array, start) -> Array:
    present = lax.dynamic_slice_in_dim(x, start, columns.shape[3], axis=3)
    return lax.dynamic_update_slice_in_dim(x, present + columns, start, axis=3)


def even_block(length: int, largest: int) -> int:
    """The smallest block size that needs no more blocks than the largest size."""
    return -(-length // -(-length // largest))


def padded_heads(x: Float[Array, "B T N H"], multiple: int) -> Float[Array, "B N t H"]:
    """Heads before positions, so that each block is a plain batch of matrix products.

    Args:
        x: queries, keys or values.
        multiple: zeros are added behind, so that the length is a multiple of this.
    """
    padding = (0, 0), (0, -x.shape[1] % multiple), (0, 0), (0, 0)
    return jnp.pad(x, padding).transpose(0, 2, 1, 3)


def padded_mask(mask: Mask, queries: int, keys: int) -> Mask:
    """The mask with room for more queries and keys behind the others."""

    def padded(values: Array | None, more: int, axis: int = 1) -> Array | None:
        if values is None:
            return None
        return jnp.pad(values, [(0, more * (place == axis)) for place in range(values.ndim)])

    return dataclasses.replace(
        mask,
        query_positions=padded(mask.query_positions, queries),
        key_positions=padded(mask.key_positions, keys),
        query_segments=padded(mask.query_segments, queries),
        key_segments=padded(mask.key_segments, keys),
        valid_keys=padded(mask.valid_keys, keys),
        allowed=padded(padded(mask.allowed, queries, 2), keys, 3),
    )
