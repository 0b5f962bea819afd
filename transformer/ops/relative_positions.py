"""Relative positions in buckets, as T5 has them."""

import functools
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int


def relative_buckets(
    queries: Int[Array, "#B T"],
    keys: Int[Array, "#B S"],
    *,
    num_buckets: int = 32,
    max_distance: int = 128,
    bidirectional: bool,
) -> Int[Array, "#B T S"]:
    """Which bucket the way from each query to each key falls into (Raffel et al. 2020, 2.1).

    Half of the buckets hold one distance each, the other half ever more of them, logarithmically;
    the last holds all from `max_distance` on.

    Args:
        queries: where queries stand.
        keys: where keys stand.
        num_buckets: of all distances together.
        max_distance: from which on all distances are the same.
        bidirectional: the second half of the buckets is for keys behind the query; otherwise such
            keys count as being at the query itself, since a mask hides them.
    """
    per_side = num_buckets // 2 if bidirectional else num_buckets
    buckets = jnp.asarray(_buckets(per_side, max_distance))
    behind = keys[:, None, :] - queries[:, :, None]
    distance = jnp.abs(behind) if bidirectional else -behind
    found = buckets[jnp.clip(distance, 0, max_distance)]
    return found + jnp.where(behind > 0, per_side, 0) if bidirectional else found


@functools.cache
def _buckets(count: int, max_distance: int) -> np.ndarray:
    """The buckets of the distances 0 to `max_distance`, all on one side."""
    exact = count // 2
    distances = np.arange(max_distance + 1)
    rounds = np.log(np.maximum(distances, 1) / exact) / math.log(max_distance / exact)
    # Where a bucket begins with a whole number, rounding must not put that into the one before.
    beyond = exact + np.floor(rounds * (count - exact) + 1e-9).astype(np.int32)
    return np.where(distances < exact, distances, np.minimum(beyond, count - 1)).astype(np.int32)
