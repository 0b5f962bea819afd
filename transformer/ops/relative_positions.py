"""Relative positions in buckets, as in T5."""

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
    """The bucket of the distance from each query to each key (Raffel et al. 2020, section 2.1).

    Half of the buckets hold one distance each; the others hold logarithmically growing ranges. The
    last bucket holds all distances from `max_distance` on.

    Args:
        queries: positions of the queries.
        keys: positions of the keys.
        num_buckets: the number of buckets for all distances.
        max_distance: all distances from here on share one bucket.
        bidirectional: the second half of the buckets is for keys behind the query; otherwise such
            keys count as distance 0, since a mask hides them.
    """
    per_side = num_buckets // 2 if bidirectional else num_buckets
    buckets = jnp.asarray(_buckets(per_side, max_distance))
    behind = keys[:, None, :] - queries[:, :, None]
    distance = jnp.abs(behind) if bidirectional else -behind
    found = buckets[jnp.clip(distance, 0, max_distance)]
    return found + jnp.where(behind > 0, per_side, 0) if bidirectional else found


@functools.cache
def _buckets(count: int, max_distance: int) -> np.ndarray:
    """The buckets of the distances 0 to `max_distance` on one side."""
    exact = count // 2
    distances = np.arange(max_distance + 1)
    rounds = np.log(np.maximum(distances, 1) / exact) / math.log(max_distance / exact)
    # If a bucket begins at a whole number, rounding must not put that into the bucket before.
    beyond = exact + np.floor(rounds * (count - exact) + 1e-9).astype(np.int32)
    return np.where(distances < exact, distances, np.minimum(beyond, count - 1)).astype(np.int32)
