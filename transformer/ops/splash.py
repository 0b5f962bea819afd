"""Attention by Splash, JAX's own kernel for TPUs.

Memory is linear in the length. The kernel supports neither biases nor dropout nor arbitrary masks;
such calls are refused, and no argument is ever ignored.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from transformer.ops.masks import Mask
from transformer.traced import Number

# The width of a TPU's vector registers; lengths must be multiples of it.
LANES = 128
_LARGEST_BLOCK = 512


def splash_refusal(
    num_queries: int, num_keys: int, mask: Mask, *, has_bias: bool, has_dropout: bool
) -> str | None:
    """Explains why Splash does not support a call; None if it does."""
    if has_bias or has_dropout:
        return "it supports neither bias nor dropout"
    if num_queries % LANES or num_keys % LANES:
        return f"{num_queries} queries and {num_keys} keys are not multiples of {LANES}"
    return _mask_refusal(mask, num_queries, num_keys)


def _mask_refusal(mask: Mask, num_queries: int, num_keys: int) -> str | None:
    alike = num_queries == num_keys
    padded = mask.valid_keys is not None or mask.key_lengths is not None
    if mask.query_segments is not None and (padded or not alike):
        return "documents come with padding, or there are not as many queries as keys"
    if padded and mask.window is not None and not mask.causal:
        return "padding comes with a window on both sides"
    if mask.allowed is not None:
        return "the mask is an arbitrary one"
    if mask.query_positions is not None or mask.key_positions is not None:
        return "positions are not 0, 1, 2, ..."
    if (mask.causal or mask.window is not None) and not alike:
        return "there are not as many queries as keys"
    return None


def splash_attention(
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
    interpret: bool = False,
) -> Float[Array, "B T N H"]:
    """Block-sparse flash attention on TPUs (JAX's Pallas kernel of that name).

    Blocks that the mask hides completely are never computed. Over several devices it must be called
    on each, as the compiler does not shard kernels.

    Args:
        query: as in `ops.attention.dot_product_attention`, also for what follows.
        key: the keys.
        value: the values.
        bias: None.
        mask: causal, a window, segments and padding, in any combination.
        scale: multiplies the logits.
        logit_cap: squashes the logits to (-cap, cap).
        dropout_rate: 0.
        dropout_key: None.
        interpret: runs in Pallas' interpreter, without a TPU, slowly.

    Raises:
        ValueError: if Splash does not support the call.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import SegmentIds

    num_queries, num_keys = query.shape[1], key.shape[1]
    refusal = splash_refusal(
        num_queries,
        num_keys,
        mask,
        has_bias=bias is not None,
        has_dropout=dropout_key is not None,
    )
    if refusal is not None:
        raise ValueError(f"splash attention cannot do this: {refusal}.")
    kernel = _kernel(mask, (num_queries, num_keys), query.shape[2], logit_cap, interpret)
    heads_first = [x.swapaxes(1, 2) for x in ((query * scale).astype(query.dtype), key, value)]
    segments = _segments(mask, query.shape[0], num_queries, num_keys)
    of_documents = [] if segments is None else [SegmentIds(*segments)]
    attended = jax.vmap(kernel)(*heads_first, *of_documents)
    return _zero_where_blind(attended.swapaxes(1, 2).astype(query.dtype), mask, num_keys)


def _kernel(
    mask: Mask, shape: tuple[int, int], num_heads: int, logit_cap: float | None, interpret: bool
) -> Callable[..., Array]:
    """The kernel for one row, called with `[N, T, H]`, `[K, S, H]` and `[K, S, H]`.

    Args:
        mask: its rules about causality and windows.
        shape: T and S.
        num_heads: N.
        logit_cap: squashes the logits.
        interpret: runs in Pallas' interpreter.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel as kernels,
    )
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_mask as masks,
    )

    if mask.window is not None:
        sides = (mask.window - 1, 0 if mask.causal else mask.window - 1)
        seen = masks.LocalMask(shape, sides, 0)
    else:
        seen = masks.CausalMask(shape) if mask.causal else masks.FullMask(shape)
    block_queries, block_keys = map(_block, shape)
    return kernels.make_splash_mha(
        masks.MultiHeadMask([seen] * num_heads),
        block_sizes=kernels.BlockSizes(
            block_q=block_queries,
            block_kv=block_keys,
            block_kv_compute=block_keys,
            block_q_dkv=block_queries,
            block_kv_dkv=block_keys,
            block_kv_dkv_compute=block_keys,
            block_q_dq=block_queries,
            block_kv_dq=block_keys,
        ),
        head_shards=1,
        q_seq_shards=1,
        attn_logits_soft_cap=logit_cap,
        interpret=interpret,
    )


def _zero_where_blind(
    attended: Float[Array, "B T N H"], mask: Mask, num_keys: int
) -> Float[Array, "B T N H"]:
    """Sets the outputs of queries that may see no key to zero: the kernel's are arbitrary.

    With documents, each query sees itself.
    """
    valid = _valid_keys(mask, num_keys)
    if valid is None:
        return attended
    seen = jnp.cumsum(valid, axis=1)
    if not mask.causal:
        seen = seen[:, -1:]
    elif mask.window is not None:
        seen = seen - jnp.pad(seen, ((0, 0), (mask.window, 0)))[:, : seen.shape[1]]
    return jnp.where((seen > 0)[:, :, None, None], attended, 0)


def _block(length: int) -> int:
    """The largest block that divides a length."""
    return next(b for b in range(min(_LARGEST_BLOCK, length), 0, -LANES) if length % b == 0)


def _segments(
    mask: Mask, batch: int, num_queries: int, num_keys: int
) -> tuple[Int[Array, "B T"], Int[Array, "B S"]] | None:
    """Segment numbers, equal where a query may attend; None if all are equal."""
    valid = _valid_keys(mask, num_keys)
    if mask.query_segments is None and valid is None:
        return None
    zeros = functools.partial(jnp.zeros, dtype=jnp.int32)
    query, key = mask.query_segments, mask.key_segments
    query = zeros((batch, num_queries)) if query is None else query.astype(jnp.int32)
    key = zeros((batch, num_keys)) if key is None else key.astype(jnp.int32)
    if valid is not None:
        key = jnp.where(valid, key, -1)
    return query, key


def _valid_keys(mask: Mask, num_keys: int) -> Bool[Array, "B S"] | None:
    """False at padding, however the mask gives it; None without padding."""
    if mask.key_lengths is None:
        return mask.valid_keys
    before = jnp.arange(num_keys) < mask.key_lengths[:, None]
    return before if mask.valid_keys is None else before & mask.valid_keys
