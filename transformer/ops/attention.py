"""Scaled dot-product attention (Vaswani et al. 2017, equation 1) behind one signature."""

import math
from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from transformer.limits import OneOf
from transformer.ops import blockwise
from transformer.ops.activations import soft_cap
from transformer.ops.cudnn import Queries, cudnn_attention, cudnn_refusal, goes_through_vmap
from transformer.ops.masks import Mask, explicit
from transformer.ops.platforms import platform
from transformer.ops.ring import ring_attention, ring_refusal
from transformer.ops.splash import splash_attention, splash_refusal
from transformer.traced import Number, is_zero

# From this many query-key pairs on, `auto` uses the blockwise implementation if that supports the
# call. Measured by benchmarks/attention.py; see LOG.md.
BLOCKWISE_FROM = 512 * 512
# Gets the scores and the weights of the reference implementation by name, and returns those to use.
Watch = Callable[[str, Array], Array]
# `auto` in programs under `vmap`, which cuDNN's kernel does not always support.
UNDER_VMAP = "auto under vmap"


def dot_product_attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K H"],
    *,
    bias: Float[Array, "#B #N T S"] | None = None,
    mask: Mask | Bool[Array, "#B #N T S"] | None = None,
    scale: float | None = None,
    logit_cap: float | None = None,
    dropout_rate: Number = 0.0,
    dropout_key: Key[Array, ""] | None = None,
    implementation: str = "auto",
) -> Float[Array, "B T N H"]:
    """Averages the values for each query, weighted by the softmax of its products with the keys.

    There are N query heads and K key and value heads, where N is a multiple of K: query head n
    attends to key head n // (N / K) (Ainslie et al. 2023). A query that may see no key at all gets
    zeros. The softmax is computed in float32 at least.

    Args:
        query: the queries.
        key: the keys.
        value: the values.
        bias: added to the logits after scaling and capping.
        mask: a `Mask`, or booleans, True where a query may attend.
        scale: multiplies the logits; None means 1 / sqrt(H).
        logit_cap: squashes the logits to (-cap, cap) with a tanh (Gemma 2, section 2).
        dropout_rate: fraction of the attention weights set to zero.
        dropout_key: randomness for the dropout; without it no weight is dropped.
        implementation: `einsum`, `blockwise`, `ring` (see `ops.ring.ring_attention`), `splash`
            (TPU), `cudnn` (GPU), or `auto`. `auto` takes the device's own kernel if that supports
            the call, otherwise blockwise for long sequences, and einsum for short ones and for
            calls that blockwise does not support.

    Returns:
        The attended values, in the dtype of the query.

    Raises:
        ValueError: if N is not a multiple of K, or the implementation is unknown or does not
            support the call.
    """
    num_heads, num_kv_heads = query.shape[2], key.shape[2]
    if num_heads % num_kv_heads:
        raise ValueError(
            f"{num_heads} query heads cannot be grouped over {num_kv_heads} key/value heads."
        )
    if mask is None:
        mask = Mask()
    elif not isinstance(mask, Mask):
        mask = explicit(mask)
    dropping = not is_zero(dropout_rate) and dropout_key is not None
    implementation = resolved(
        implementation,
        query,
        key.shape[1],
        mask,
        has_bias=bias is not None,
        has_dropout=dropping,
        has_cap=logit_cap is not None,
    )
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"no attention implementation {implementation!r}: "
            f"choose from auto, {', '.join(IMPLEMENTATIONS)}."
        )
    return IMPLEMENTATIONS[implementation](
        query,
        key,
        value,
        bias=bias,
        mask=mask,
        scale=1.0 / math.sqrt(query.shape[-1]) if scale is None else scale,
        logit_cap=logit_cap,
        dropout_rate=dropout_rate if dropping else 0.0,
        dropout_key=dropout_key,
    )


def choose_implementation(
    num_queries: int, num_keys: int, *, has_bias: bool = False, has_dropout: bool = False
) -> str:
    """Resolves `auto` without a device kernel: blockwise for long sequences, otherwise einsum.

    A bias or dropout always means einsum.
    """
    long = num_queries > 1 and num_queries * num_keys >= BLOCKWISE_FROM
    return "blockwise" if long and not has_bias and not has_dropout else "einsum"


def resolved(
    implementation: str,
    query: Queries,
    num_keys: int,
    mask: Mask,
    *,
    has_bias: bool = False,
    has_dropout: bool = False,
    has_cap: bool = False,
) -> str:
    """Resolves `auto` to an implementation: the device's own kernel if that supports the call.

    Args:
        implementation: as in `dot_product_attention`, or `UNDER_VMAP`.
        query: the queries, or their shape `[B, T, N, H]` and dtype.
        num_keys: S.
        mask: the attention mask.
        has_bias: whether there is a bias.
        has_dropout: whether weights are dropped.
        has_cap: whether logits are capped.
    """
    if implementation not in ("auto", UNDER_VMAP):
        return implementation
    asked = {"has_bias": has_bias, "has_dropout": has_dropout}
    num_queries = query.shape[1]
    kernel = {"tpu": "splash", "gpu": "cudnn"}.get(platform())
    if kernel == "cudnn":
        batched = implementation == UNDER_VMAP
        # One query has few weights, and the kernel would copy the keys if their number is odd.
        if num_queries == 1 or (
            batched and not goes_through_vmap(mask, num_queries, num_keys, has_bias=has_bias)
        ):
            kernel = None
    if kernel is not None:
        why_not = refusal(kernel, query, num_keys, mask, **asked, has_cap=has_cap)
        if why_not is None:
            return kernel
    return choose_implementation(num_queries, num_keys, **asked)


def refusal(
    implementation: str,
    query: Queries,
    num_keys: int,
    mask: Mask,
    *,
    has_bias: bool = False,
    has_dropout: bool = False,
    has_cap: bool = False,
) -> str | None:
    """Explains why an implementation does not support a call; None if it does.

    Arguments as in `resolved`; `auto`, `UNDER_VMAP` and `einsum` support every call.
    """
    asked = {"has_bias": has_bias, "has_dropout": has_dropout}
    if implementation == "blockwise":
        return blockwise.blockwise_refusal(**asked)
    if implementation == "ring":
        return ring_refusal(mask, **asked)
    if implementation == "splash":
        return splash_refusal(query.shape[1], num_keys, mask, **asked)
    if implementation == "cudnn":
        return cudnn_refusal(query, num_keys, mask, **asked, has_cap=has_cap)
    return None


def foreign_platform(implementation: str) -> str | None:
    """The current platform if the kernel of this name does not run on it; otherwise None."""
    needed = {"splash": "tpu", "cudnn": "gpu"}.get(implementation)
    return None if needed in (None, platform()) else platform()


def einsum_attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K H"],
    *,
    bias: Float[Array, "#B #N T S"] | None,
    mask: Mask,
    scale: float | None,
    logit_cap: float | None,
    dropout_rate: Number,
    dropout_key: Key[Array, ""] | None,
    watch: Watch | None = None,
) -> Float[Array, "B T N H"]:
    """The reference implementation: computes all weights at once, fused by XLA.

    Arguments as above. `watch` gets `scores`, which are the logits before the mask, and `weights`.
    """
    batch, num_queries, num_heads, head_dim = query.shape
    num_keys, num_kv_heads = key.shape[1], key.shape[2]
    logits = {"bias": bias, "mask": mask, "scale": scale, "logit_cap": logit_cap}
    weights = attention_weights(query, key, **logits, watch=watch)
    if dropout_key is not None and not is_zero(dropout_rate):
        kept = jax.random.bernoulli(dropout_key, 1.0 - dropout_rate, weights.shape)
        weights = jnp.where(kept, weights / (1.0 - dropout_rate), 0.0)

    grouped = (batch, num_kv_heads, num_heads // num_kv_heads * num_queries, num_keys)
    weights = weights.astype(value.dtype).reshape(grouped)
    # [B K GT S], [B K S H] -> [B K GT H] = [B N T H]
    output = jnp.einsum("bkts,bksh->bkth", weights, value.transpose(0, 2, 1, 3))
    output = output.reshape(batch, num_heads, num_queries, head_dim).transpose(0, 2, 1, 3)
    if mask.may_hide_all_keys(num_queries, num_keys):
        allowed = mask.materialize(num_queries, num_keys)
        if allowed is not None:
            seen = jnp.any(allowed, axis=-1).swapaxes(1, 2)[..., None]
            output = jnp.where(seen, output, 0.0)
    return output


def attention_weights(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    *,
    bias: Float[Array, "#B #N T S"] | None = None,
    mask: Mask,
    scale: float | None = None,
    logit_cap: float | None = None,
    watch: Watch | None = None,
) -> Float[Array, "B N T S"]:
    """The weight of each key for each query, in float32 at least; arguments as above.

    The weights of a query that may see no key are meaningless.
    """
    batch, num_queries, num_heads, head_dim = query.shape
    num_keys, num_kv_heads = key.shape[1], key.shape[2]
    scale = 1.0 / math.sqrt(head_dim) if scale is None else scale
    # Heads before positions, and the queries that share a key head in one matrix: a plain batch
    # of matrix products, which every backend runs well.
    grouped = (batch, num_kv_heads, num_heads // num_kv_heads * num_queries, head_dim)
    query = (query * scale).transpose(0, 2, 1, 3).reshape(grouped)
    # [B K GT H], [B K S H] -> [B K GT S] = [B N T S]
    accurate = jnp.promote_types(query.dtype, jnp.float32)
    logits = jnp.einsum(
        "bkth,bksh->bkts", query, key.transpose(0, 2, 1, 3), preferred_element_type=accurate
    )
    logits = logits.reshape(batch, num_heads, num_queries, num_keys)
    if logit_cap is not None:
        logits = soft_cap(logits, logit_cap)
    if bias is not None:
        logits = logits + bias
    if watch is not None:
        logits = watch("scores", logits)
    allowed = mask.materialize(num_queries, num_keys)
    if allowed is not None:
        # A finite floor: the difference of two infinities would be NaN in rows without any key.
        logits = jnp.where(allowed, logits, jnp.finfo(logits.dtype).min)
    weights = softmax(logits)
    return weights if watch is None else watch("weights", weights)


@jax.custom_vjp
def softmax(logits: Float[Array, "*B S"]) -> Float[Array, "*B S"]:
    """Softmax over the last axis, with one division for each row.

    Its backward pass needs only the result. Without this rule the compiler keeps more, or computes
    the exponentials again (measured on CPUs, see LOG.md).
    """
    exponentials = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
    return exponentials * (1.0 / jnp.sum(exponentials, axis=-1, keepdims=True))


def _softmax_forward(logits: Array) -> tuple[Array, Array]:
    weights = softmax(logits)
    return weights, weights


def _softmax_backward(weights: Array, gradient: Array) -> tuple[Array]:
    inner = jnp.sum(gradient * weights, axis=-1, keepdims=True)
    return (weights * (gradient - inner),)


softmax.defvjp(_softmax_forward, _softmax_backward)


IMPLEMENTATIONS: dict[str, Callable[..., Array]] = {
    "einsum": einsum_attention,
    "blockwise": blockwise.blockwise_attention,
    "ring": ring_attention,
    "splash": splash_attention,
    "cudnn": cudnn_attention,
}
Implementation = Annotated[str, OneOf(("auto", *IMPLEMENTATIONS))]
