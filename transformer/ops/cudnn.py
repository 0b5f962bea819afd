"""Attention by cuDNN's kernel on NVIDIA GPUs, through `jax.nn.dot_product_attention`.

Memory is linear in the length if the kernel has arguments for the mask: causal, a window behind,
padding behind the tokens. Every other mask (documents in a row, padding anywhere, positions,
windows on both sides) is passed as a full array that is added to the logits, with one entry for
each pair of a query and a key, shared by all heads. The refusals follow JAX's own checks
(`check_layout` and `check_is_flash_attention` in `jax._src.cudnn.fused_attention_stablehlo`) and
those of cuDNN's front end that come later, when a program is compiled.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from transformer.ops.masks import Mask
from transformer.traced import Number

# Queries, or their shape `[B, T, N, H]` and dtype.
Queries = Float[Array, "B T N H"] | jax.ShapeDtypeStruct

_HALF = ("bfloat16", "float16")
# A mask that is passed as a full array has at most this many entries: half a gigabyte.
LARGEST_MASK = 1 << 28


def cudnn_refusal(
    query: Queries, num_keys: int, mask: Mask, *, has_bias: bool, has_dropout: bool, has_cap: bool
) -> str | None:
    """Explains why cuDNN does not support a call; None if it does.

    Args:
        query: the queries, or their shape and dtype.
        num_keys: S.
        mask: the attention mask.
        has_bias: whether there is a bias.
        has_dropout: whether weights are dropped.
        has_cap: whether logits are capped.
    """
    if has_dropout or has_cap:
        return "it supports neither dropout nor capped logits"
    if query.dtype.name not in _HALF:
        return f"it computes in {' and '.join(_HALF)}, not in {query.dtype.name}"
    capability = _compute_capability()
    if capability is not None and capability < (8, 0):
        return "it needs a GPU of NVIDIA's, Ampere or later"
    # Only Hopper has a backward pass for wider heads.
    widest = 256 if capability is not None and capability[0] == 9 else 128
    rows, num_queries, num_heads, head_dim = query.shape
    if head_dim % 8 or head_dim > widest:
        return f"heads of {head_dim} are not a multiple of 8 up to {widest}"
    if not _is_known(mask, num_queries, num_keys, has_bias=has_bias):
        # With a bias for each head, the mask is expanded to each head.
        entries = rows * num_queries * num_keys * (num_heads if has_bias else 1)
        if entries > LARGEST_MASK:
            return f"its mask would have {entries:,} entries, more than {LARGEST_MASK:,}"
    return None


def goes_through_vmap(mask: Mask, num_queries: int, num_keys: int, *, has_bias: bool) -> bool:
    """Whether JAX can batch the call: not with a bias, a mask passed as an array, or lengths."""
    if has_bias or not _is_known(mask, num_queries, num_keys, has_bias=has_bias):
        return False
    return mask.key_lengths is None and (mask.causal or num_keys % 2 == 0)


def cudnn_attention(
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
    """Flash attention by cuDNN in half precision, in which the bias is added as well.

    Args:
        query: as in `ops.attention.dot_product_attention`, also for what follows.
        key: the keys.
        value: the values.
        bias: added to the logits; gradients flow through it.
        mask: any.
        scale: multiplies the logits.
        logit_cap: None.
        dropout_rate: 0.
        dropout_key: None.

    Raises:
        ValueError: if cuDNN does not support the call.
    """
    num_queries, num_keys = query.shape[1], key.shape[1]
    has_bias = bias is not None
    refusal = cudnn_refusal(
        query,
        num_keys,
        mask,
        has_bias=has_bias,
        has_dropout=dropout_key is not None,
        has_cap=logit_cap is not None,
    )
    if refusal is not None:
        raise ValueError(f"cuDNN's attention cannot do this: {refusal}.")
    known = _is_known(mask, num_queries, num_keys, has_bias=has_bias)
    allowed = None if known else _whole(mask, num_queries, num_keys)
    seeing = _seeing(mask, allowed, num_queries, num_keys)
    if allowed is not None and seeing is not None:
        # On an H200 results were not finite where a query had nothing but hidden keys.
        allowed = allowed | ~seeing
    asked = _asked(mask, query.shape[0], num_queries, num_keys) if known else {}
    # JAX treats every training call as one with a bias, and those need even lengths.
    attended = jax.nn.dot_product_attention(
        _even(query, 1),
        _even(key, 1),
        _even(value, 1),
        None if bias is None else _even(_even(bias.astype(query.dtype), 2), 3),
        # The query that was added sees the keys.
        None if allowed is None else _even(_even(allowed, 2, True), 3),
        scale=scale,
        # Where the full mask is passed as an array, only this flag lets the kernel skip blocks.
        is_causal=_is_plainly_causal(mask, num_queries, num_keys),
        implementation="cudnn",
        **asked,
    )[:, :num_queries]
    # What a query without any key gets from the kernel is arbitrary.
    return attended if seeing is None else jnp.where(seeing.swapaxes(1, 2), attended, 0)


def _compute_capability() -> tuple[int, ...] | None:
    """(9, 0) for Hopper; empty for a GPU of another maker, None without a GPU."""
    device = jax.local_devices()[0]
    if device.platform != "gpu":
        return None
    parts = device.compute_capability.split(".")
    return tuple(map(int, parts)) if all(map(str.isdigit, parts)) else ()


def _is_plainly_causal(mask: Mask, num_queries: int, num_keys: int) -> bool:
    """Whether the mask lets query i see only keys 0 to i."""
    positions = (mask.query_positions, mask.key_positions)
    return mask.causal and num_queries == num_keys and all(rule is None for rule in positions)


def _is_known(mask: Mask, num_queries: int, num_keys: int, *, has_bias: bool) -> bool:
    """Whether the kernel has arguments that express the whole mask."""
    rules = (mask.query_positions, mask.key_positions, mask.query_segments, mask.valid_keys)
    if mask.allowed is not None or any(rule is not None for rule in rules):
        return False
    if not _is_plainly_causal(mask, num_queries, num_keys):
        return not mask.causal and mask.window is None
    # Windows together with biases are new in cuDNN 9.10.2.
    return mask.window is None or not has_bias


def _whole(mask: Mask, num_queries: int, num_keys: int) -> Bool[Array, "#B #N T S"]:
    """The mask as an array with an entry for each pair: the kernel itself broadcasts nothing."""
    allowed = mask.materialize(num_queries, num_keys)
    if allowed is None:
        raise ValueError("a mask that hides nothing is known to the kernel.")
    return jnp.broadcast_to(allowed, (*allowed.shape[:2], num_queries, num_keys))


def _asked(
    mask: Mask, rows: int, num_queries: int, num_keys: int
) -> dict[str, Array | tuple[int, int]]:
    """The arguments for lengths and windows."""
    asked: dict[str, Array | tuple[int, int]] = {}
    lengths = mask.key_lengths
    if lengths is None and num_keys % 2 and not mask.causal:
        # The key that was added to make the number even.
        lengths = jnp.full((rows,), num_keys)
    if lengths is not None:
        # In rows without any key, the weights and the gradients would be NaN.
        lengths = jnp.maximum(lengths, 1).astype(jnp.int32)
        asked["key_value_seq_lengths"] = lengths
    if mask.window is not None:
        asked["local_window_size"] = (mask.window - 1, 0)
        if lengths is not None:
            # Some queries have a window that is all padding.
            asked["query_seq_lengths"] = jnp.minimum(lengths + mask.window - 1, num_queries)
    return asked


def _even(x: Array, axis: int, entry: bool | float = 0) -> Array:
    """Pads an axis of odd length with one entry."""
    if x.shape[axis] % 2 == 0:
        return x
    pads = [(0, int(place == axis)) for place in range(x.ndim)]
    return jnp.pad(x, pads, constant_values=entry)


def _seeing(
    mask: Mask, allowed: Bool[Array, "#B #N T S"] | None, num_queries: int, num_keys: int
) -> Bool[Array, "#B #N #T 1"] | None:
    """Which queries may see a key; None if all may."""
    if allowed is not None:
        if not mask.may_hide_all_keys(num_queries, num_keys):
            return None
        return jnp.any(allowed, axis=-1, keepdims=True)
    if mask.key_lengths is None:
        return None
    seeing = mask.key_lengths[:, None] > 0
    if mask.window is not None:
        beyond = mask.key_lengths[:, None] + mask.window - 1
        seeing = seeing & (jnp.arange(num_queries) < beyond)
    return seeing[:, None, :, None]
