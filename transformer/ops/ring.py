"""Attention of a sequence that is divided over devices, none of which ever holds all keys.

Each device keeps its queries, and keys and values go round a ring of devices (Liu et al. 2023,
"Ring Attention with Blockwise Transformers for Near-Infinite Context", section 3 and algorithm 1).
What a device has found so far is merged with what the next keys add by the online softmax (Milakov
and Gimelshein 2018), in float32. The backward pass goes round once more and computes the weights
again; the gradients of keys and values travel with them. So memory is linear in the part of the
sequence that one device has.

Blocks that the causal rule or a window hides are not computed. With a window behind, keys go only
as far as it reaches. The order of positions is the plain one: with the causal rule alone the last
device has the most to do and decides the time.
"""

import functools
from typing import NamedTuple

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
from transformer.ops.blockwise import BLOCK_SIZE, blockwise_attention
from transformer.ops.masks import Mask
from transformer.traced import Number

# The mesh axis over which sequences are divided.
AXIS = "sequence"


class _Ring(NamedTuple):
    """What is known at compile time.

    Attributes:
        plan: of the blocks.
        axis: the mesh axis of the ring.
        size: the number of devices.
        rounds: how many devices' keys each device sees.
        num_queries: queries of each device without padding, t.
    """

    plan: Plan
    axis: str
    size: int
    rounds: int
    num_queries: int


class _Softmax(NamedTuple):
    """Attention to the keys seen so far.

    Attributes:
        output: the weighted mean of their values.
        log_normalizer: the logarithm of what their weights were divided by; -inf without any key.
    """

    output: Float[Array, "B N t H"]
    log_normalizer: Float[Array, "B N t"]


def ring_refusal(mask: Mask, *, has_bias: bool, has_dropout: bool) -> str | None:
    """Explains why the ring does not support a call; None if it does."""
    if has_bias or has_dropout:
        return "it supports neither bias nor dropout"
    if mask.allowed is not None:
        return "the mask is an arbitrary one, with an entry for each pair of positions"
    return None


def ring_attention(
    query: Float[Array, "B t N H"],
    key: Float[Array, "B s K H"],
    value: Float[Array, "B s K H"],
    *,
    bias: Float[Array, "#B #N T S"] | None,
    mask: Mask,
    scale: float,
    logit_cap: float | None,
    dropout_rate: Number,
    dropout_key: Key[Array, ""] | None,
    axis: str = AXIS,
) -> Float[Array, "B t N H"]:
    """Attention by a ring of devices, called on each of them (in `jax.shard_map`).

    Outside of `jax.shard_map` the ring has one device, and this is blockwise attention.

    Args:
        query: the queries of this device, t = T / devices; also for what follows as in
            `ops.attention.dot_product_attention`.
        key: the keys of this device, s = S / devices.
        value: their values.
        bias: None.
        mask: of the whole sequences: its arrays have T and S entries in each row.
        scale: multiplies the logits.
        logit_cap: squashes the logits to (-cap, cap).
        dropout_rate: 0.
        dropout_key: None.
        axis: the mesh axis of the ring.

    Raises:
        ValueError: if the ring does not support the call.
    """
    asked = {"has_bias": bias is not None, "has_dropout": dropout_key is not None}
    refusal = ring_refusal(mask, **asked)
    if refusal is not None:
        raise ValueError(f"ring attention cannot do this: {refusal}.")
    if axis not in jax.sharding.get_abstract_mesh().manual_axes:
        options = {"mask": mask, "scale": scale, "logit_cap": logit_cap}
        none = {"bias": None, "dropout_rate": 0.0, "dropout_key": None}
        return blockwise_attention(query, key, value, **options, **none)
    num_queries, num_heads = query.shape[1:3]
    num_keys, num_kv_heads = key.shape[1:3]
    query_block, key_block = even_block(num_queries, BLOCK_SIZE), even_block(num_keys, BLOCK_SIZE)
    size = lax.axis_size(axis)
    ring = _Ring(
        Plan(logit_cap, query_block, key_block, num_keys, num_heads // num_kv_heads),
        axis,
        size,
        _rounds(mask, size, num_queries, num_keys),
        num_queries,
    )
    attended: Array = _attend(
        ring,
        padded_heads(query * scale, query_block),
        padded_heads(key, key_block),
        padded_heads(value, key_block),
        padded_mask(mask, -num_queries % query_block, -num_keys % key_block),
    )
    return attended.transpose(0, 2, 1, 3)[:, :num_queries]


def _rounds(mask: Mask, size: int, num_queries: int, num_keys: int) -> int:
    """How many devices' keys a device has to see: its own and those that a window reaches."""
    moved = mask.query_positions is not None or mask.key_positions is not None
    if mask.window is None or not mask.causal or moved or num_queries != num_keys:
        return size
    return min(size, 1 + -(-(mask.window - 1) // num_keys))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(ring: _Ring, query: Array, key: Array, value: Array, mask: Mask) -> Array:
    """Attention in the layouts `[B, N, t, H]` and `[B, K, s, H]`, padded to whole blocks."""
    return _attend_forward(ring, query, key, value, mask)[0]


def _attend_forward(ring: _Ring, query: Array, key: Array, value: Array, mask: Mask):
    def see(step: Int[Array, ""] | int, so_far: _Softmax, key: Array, value: Array) -> _Softmax:
        origin = _origin(ring, step)
        output, log_normalizer = attend_blocks(
            ring.plan, query, key, value, mask, origin, dtype=jnp.float32
        )
        unseen = jnp.isposinf(log_normalizer)
        return _merged(so_far, _Softmax(output, jnp.where(unseen, -jnp.inf, log_normalizer)))

    def go(carry: tuple[_Softmax, Array, Array], step: Array):
        so_far, key, value = carry
        # The next keys are under way while these are looked at.
        following = _passed_on(ring, (key, value))
        return (see(step, so_far, key, value), *following), None

    nothing = _Softmax(
        jnp.zeros(query.shape, jnp.float32), jnp.full(query.shape[:3], -jnp.inf, jnp.float32)
    )
    last = ring.rounds - 1
    (so_far, *received), _ = lax.scan(go, (nothing, key, value), jnp.arange(last))
    output, log_normalizer = see(last, so_far, *received)
    output = output.astype(query.dtype)
    # As `attend_blocks` has it for queries that see no key.
    log_normalizer = jnp.where(jnp.isneginf(log_normalizer), jnp.inf, log_normalizer)
    return output, (query, key, value, mask, output, log_normalizer)


def _attend_backward(ring: _Ring, residuals, gradient: Array):
    query, key, value, mask, output, log_normalizer = residuals
    rows = Rows(query, gradient, log_normalizer, weighted_gradient(gradient, output))

    def see(step: Int[Array, ""] | int, of_query: Array, of_keys: tuple, key: Array, value: Array):
        origin = _origin(ring, step)
        more, *of_keys = add_gradients(ring.plan, rows, key, value, mask, of_keys, origin)
        return of_query + more, tuple(of_keys)

    def go(carry: tuple[Array, tuple, Array, Array], step: Array):
        of_query, of_keys, key, value = carry
        following = _passed_on(ring, (key, value))
        of_query, of_keys = see(step, of_query, of_keys, key, value)
        return (of_query, _passed_on(ring, of_keys), *following), None

    nothing = (jnp.zeros(key.shape, jnp.float32), jnp.zeros(value.shape, jnp.float32))
    last = ring.rounds - 1
    begun = jnp.zeros(query.shape, jnp.float32), nothing, key, value
    (of_query, of_keys, *received), _ = lax.scan(go, begun, jnp.arange(last))
    of_query, of_keys = see(last, of_query, of_keys, *received)
    of_key, of_value = _passed_on(ring, of_keys, -last)
    return (
        of_query.astype(query.dtype),
        of_key.astype(key.dtype),
        of_value.astype(value.dtype),
        None,
    )


_attend.defvjp(_attend_forward, _attend_backward)


def _origin(ring: _Ring, step: Int[Array, ""] | int) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """Where the queries, and the keys that are here after some steps, lie in the sequences."""
    here = lax.axis_index(ring.axis)
    source = (here - step) % ring.size
    return here * ring.num_queries, source * ring.plan.num_keys


def _passed_on(ring: _Ring, arrays: tuple[Array, ...], places: int = 1) -> tuple[Array, ...]:
    """What the device so many places before this one had."""
    way = [(source, (source + places) % ring.size) for source in range(ring.size)]
    return lax.ppermute(arrays, ring.axis, way) if places % ring.size else arrays


def _merged(one: _Softmax, other: _Softmax) -> _Softmax:
    """Attention to the keys of both (Milakov and Gimelshein 2018, equation 4)."""
    log_normalizer = jnp.logaddexp(one.log_normalizer, other.log_normalizer)
    # Queries that have seen no key yet: keep the exponent finite.
    shift = jnp.where(jnp.isneginf(log_normalizer), 0.0, log_normalizer)[..., None]
    first, second = (x.output * jnp.exp(x.log_normalizer[..., None] - shift) for x in (one, other))
    return _Softmax(first + second, log_normalizer)
