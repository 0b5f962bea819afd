"""The largest of many numbers."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from transformer.ops.platforms import is_one_cpu

# Numbers of a group, and from how many numbers on groups save time on a CPU.
_GROUP, _MANY = 64, 1 << 14


def largest(
    values: Float[Array, "B K V"], count: int
) -> tuple[Float[Array, "B C"], Int[Array, "B C"]]:
    """The `count` largest numbers of each row of K x V, largest first, and their places in it.

    A CPU first takes the largest of each group, which is a plain reduction, and then looks only
    into the best groups: the numbers that are wanted are in as many groups at most. Of equal
    numbers it may choose others than `lax.top_k`, and it may overlook a single NaN.

    Args:
        values: the numbers.
        count: C.
    """
    batch, parts, size = values.shape
    flat, num_groups = values.reshape(batch, -1), size // _GROUP
    if parts * size < _MANY or count > parts * num_groups or not is_one_cpu():
        found, places = lax.top_k(flat, count)
        return found, places
    whole = num_groups * _GROUP
    best = jnp.max(values[..., :whole].reshape(batch, parts, num_groups, _GROUP), axis=-1)
    # In their order, so that the first of equal numbers is found first.
    groups = jnp.sort(lax.top_k(best.reshape(batch, -1), count)[1], axis=-1)
    starts = groups // num_groups * size + groups % num_groups * _GROUP
    places = (starts[..., None] + jnp.arange(_GROUP)).reshape(batch, -1)
    # The last numbers of each part fill no group.
    rest = (jnp.arange(parts)[:, None] * size + jnp.arange(whole, size)).reshape(-1)
    places = jnp.concatenate([places, jnp.broadcast_to(rest, (batch, len(rest)))], axis=-1)
    found, which = lax.top_k(jnp.take_along_axis(flat, places, axis=-1), count)
    return found, jnp.take_along_axis(places, which, axis=-1)
