"""Attention with linear biases: near tokens count more than far ones (Press et al. 2022, ALiBi)."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def alibi_slopes(num_heads: int) -> Float[Array, " N"]:
    """How fast each head forgets.

    The slopes are a geometric sequence. If the number of heads is not a power of two, the slopes of
    the next smaller power come first, then every other slope of twice that power, as in the paper's
    code.

    Args:
        num_heads: N.
    """
    power = 1 << (num_heads.bit_length() - 1)
    slopes = 2.0 ** (-8.0 * jnp.arange(1, power + 1) / power)
    between = 2.0 ** (-4.0 * jnp.arange(1, 2 * power + 1, 2) / power)
    return jnp.concatenate([slopes, between[: num_heads - power]])


def alibi(
    query_positions: Int[Array, "B T"], key_positions: Int[Array, "#B S"], num_heads: int
) -> Float[Array, "B N T S"]:
    """What is added to the logits: minus the distance times the slope of the head (section 3).

    Args:
        query_positions: of the queries.
        key_positions: of the keys.
        num_heads: N.
    """
    distance = jnp.abs(query_positions[:, None, :, None] - key_positions[:, None, None, :])
    return -alibi_slopes(num_heads)[:, None, None] * distance
