"""The largest of many numbers."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from transformer.ops.platforms import is_one_cpu

# Numbers of a group, and from how many numbers on groups save time on a CPU.
_GROUP, _MANY = 64, 1 << 14


def largest(
    values: Float[Array, "B n"], count: int
) -> tuple[Float[Array, "B k"], Int[Array, "B k"]]:
    """The `count` largest numbers of each row, largest first, and their places.

    A CPU first takes the largest of each group, which is a plain reduction, and then looks only
    into the best groups: the numbers that are wanted are in as many groups at most. Of equal
    numbers it may choose others than `lax.top_k`, and it may overlook a single NaN.

    Args:
        values: the numbers.
        count: k.
    """
    rows, size = values.shape
    num_groups = size // _GROUP
    if size < _MANY or count > num_groups or not is_one_cpu():
        found, places = lax.top_k(values, count)
        return found, places
    whole = num_groups * _GROUP
    best = jnp.max(values[:, :whole].reshape(rows, num_groups, _GROUP), axis=-1)
    # In their order, so that the first of equal numbers is found first.
    groups = jnp.sort(lax.top_k(best, count)[1], axis=-1)
    places = (groups[..., None] * _GROUP + jnp.arange(_GROUP)).reshape(rows, -1)
    rest = jnp.broadcast_to(jnp.arange(whole, size), (rows, size - whole))
    places = jnp.concatenate([places, rest], axis=-1)
    found, which = lax.top_k(jnp.take_along_axis(values, places, axis=-1), count)
    return found, jnp.take_along_axis(places, which, axis=-1)
