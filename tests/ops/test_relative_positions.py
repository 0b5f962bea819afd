import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer.ops import relative_positions

relative_buckets = jax.jit(
    relative_positions.relative_buckets,
    static_argnames=("bidirectional", "num_buckets", "max_distance"),
)


def buckets(behind, **options):
    """Of keys so many places behind one query."""
    keys = jnp.asarray(behind)[None, :]
    return relative_buckets(jnp.zeros((1, 1), int), keys, **options)[0, 0].tolist()


def test_small_distances_have_buckets_of_their_own():
    assert buckets([0, -1, -2, -15], bidirectional=False) == [0, 1, 2, 15]
    assert buckets([0, -1, -7, 1, 7], bidirectional=True) == [0, 1, 7, 17, 23]


def test_large_distances_share_buckets_logarithmically():
    # 8 buckets from 8 to 128: each begins where the one before did, times the root of 2.
    starts = [8, 12, 16, 23, 32, 46, 64, 91]
    assert buckets([-start for start in starts], bidirectional=True) == list(range(8, 16))
    assert buckets([1 - start for start in starts[1:]], bidirectional=True) == list(range(8, 15))
    # 16 buckets from 16 to 128.
    assert buckets([-16, -127, -128, -1000], bidirectional=False) == [16, 31, 31, 31]
    assert buckets([-128, -5000, 128, 5000], bidirectional=True) == [15, 15, 31, 31]


def test_few_buckets():
    # Half of them, 0 to 3, hold one distance each; 4 begins with distance 4 and 7 with the largest.
    few = {"bidirectional": False, "num_buckets": 8, "max_distance": 5}
    assert buckets([-3, -4, -5, -9], **few) == [3, 4, 7, 7]
    # One holds a distance of its own, 0; the others begin at 1 and 2, the root of 1 x 4.
    assert buckets([0, -1, -2, -4], **{**few, "num_buckets": 3, "max_distance": 4}) == [0, 1, 2, 2]


def test_keys_behind_a_causal_query_are_at_the_query():
    assert buckets([1, 5, 500], bidirectional=False) == [0, 0, 0]


@pytest.mark.parametrize("bidirectional", [False, True])
def test_only_differences_matter_and_all_buckets_are_used(bidirectional):
    places = jnp.arange(300)[None]
    options = {"bidirectional": bidirectional, "num_buckets": 12, "max_distance": 50}
    here = relative_buckets(places, places, **options)
    moved = relative_buckets(places + 7, places + 7, **options)
    np.testing.assert_array_equal(here, moved)
    # No key behind a query is at a distance of 0.
    assert set(np.unique(here).tolist()) == set(range(12)) - ({6} if bidirectional else set())
    # The further away, the later the bucket.
    before = np.asarray(here)[0, -1, ::-1]
    assert (np.diff(before) >= 0).all()
