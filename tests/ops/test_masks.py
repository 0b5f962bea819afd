import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformer.ops import masks

BATCH, HEADS, QUERIES, KEYS = 2, 3, 6, 8
ROWS, COLUMNS = np.arange(QUERIES)[:, None], np.arange(KEYS)[None, :]


def seen(mask, queries=QUERIES, keys=KEYS):
    return np.asarray(mask.materialize(queries, keys))


def test_full_masks_nothing():
    assert masks.full().materialize(QUERIES, KEYS) is None


def test_causal():
    np.testing.assert_array_equal(seen(masks.causal())[0, 0], COLUMNS <= ROWS)


@pytest.mark.parametrize("window", [1, 3, 100])
def test_sliding_window(window):
    mask = seen(masks.sliding_window(window))[0, 0]
    np.testing.assert_array_equal(mask, np.abs(ROWS - COLUMNS) < window)


def test_causal_window_sees_itself_and_those_before():
    mask = seen(masks.causal() & masks.sliding_window(3))[0, 0]
    np.testing.assert_array_equal(mask, (COLUMNS <= ROWS) & (COLUMNS > ROWS - 3))


def test_window_must_hold_a_key():
    with pytest.raises(ValueError, match="not 0"):
        masks.sliding_window(0)


def test_narrower_window_wins():
    both = masks.sliding_window(4) & masks.sliding_window(2)
    np.testing.assert_array_equal(seen(both), seen(masks.sliding_window(2)))


def test_padding():
    valid = jnp.array([[True] * 5 + [False] * 3, [True] * 8])
    mask = np.broadcast_to(seen(masks.padding(valid)), (BATCH, 1, QUERIES, KEYS))
    np.testing.assert_array_equal(mask, np.asarray(valid)[:, None, None, :].repeat(QUERIES, 2))


def test_paddings_combine():
    first, second = jnp.array([[True, True, False]]), jnp.array([[True, False, True]])
    mask = seen(masks.padding(first) & masks.padding(second), 1, 3)
    np.testing.assert_array_equal(mask[0, 0, 0], [True, False, False])


def test_segments_see_their_own_document():
    ids = jnp.array([[0, 0, 1, 1, 2, 0]])
    mask = seen(masks.segments(ids), 6, 6)[0, 0]
    np.testing.assert_array_equal(mask, np.asarray(ids) == np.asarray(ids).T)


def test_segments_across():
    queries, keys = jnp.array([[0, 1]]), jnp.array([[1, 1, 0]])
    mask = seen(masks.segments(queries, keys), 2, 3)[0, 0]
    np.testing.assert_array_equal(mask, [[False, False, True], [True, True, False]])


def test_positions_move_the_causal_rule():
    positions = jnp.array([[3], [0]])
    mask = seen(masks.causal() & masks.at_positions(positions), 1, 5)[:, 0, 0]
    np.testing.assert_array_equal(mask, [[True] * 4 + [False], [True] + [False] * 4])


def test_explicit_and_causal():
    allowed = jnp.ones((1, 1, 3, 3), bool).at[0, 0, 2, 0].set(False)
    mask = seen(masks.explicit(allowed) & masks.causal(), 3, 3)[0, 0]
    expected = np.tril(np.ones((3, 3), bool))
    expected[2, 0] = False
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize(
    ("what", "make"),
    [
        ("query positions", lambda: masks.at_positions(jnp.zeros((1, 2), int))),
        ("query segments", lambda: masks.segments(jnp.zeros((1, 2), int))),
    ],
)
def test_conflicts_raise(what, make):
    with pytest.raises(ValueError, match=f"both masks give {what}"):
        make() & make()


RNG = np.random.default_rng(0)
QUERY_POSITIONS = RNG.integers(0, 9, (BATCH, QUERIES))
KEY_POSITIONS = RNG.integers(0, 9, (BATCH, KEYS))
QUERY_SEGMENTS = RNG.integers(0, 2, (BATCH, QUERIES))
KEY_SEGMENTS = RNG.integers(0, 2, (BATCH, KEYS))
VALID = RNG.random((BATCH, KEYS)) < 0.7
LENGTHS = RNG.integers(0, KEYS + 1, BATCH)
ALLOWED = RNG.random((1, HEADS, QUERIES, KEYS)) < 0.7
RULES = {
    "causal": masks.causal(),
    "window": masks.sliding_window(2),
    "positions": masks.at_positions(jnp.asarray(QUERY_POSITIONS), jnp.asarray(KEY_POSITIONS)),
    "segments": masks.segments(jnp.asarray(QUERY_SEGMENTS), jnp.asarray(KEY_SEGMENTS)),
    "padding": masks.padding(jnp.asarray(VALID)),
    "lengths": masks.padding_behind(jnp.asarray(LENGTHS)),
    "explicit": masks.explicit(jnp.asarray(ALLOWED)),
}
combinations = st.sets(st.sampled_from(sorted(RULES)), min_size=1).filter(
    lambda names: names != {"positions"}
)


def combined(names):
    mask = masks.full()
    for name in sorted(names):
        mask = mask & RULES[name]
    return mask


def whole(mask):
    return np.broadcast_to(seen(mask), (BATCH, HEADS, QUERIES, KEYS))


@given(names=combinations)
def test_a_conjunction_in_numpy(names):
    queries, keys = ROWS[None], COLUMNS[None]
    if "positions" in names:
        queries, keys = QUERY_POSITIONS[:, :, None], KEY_POSITIONS[:, None, :]
    expected = np.ones((BATCH, HEADS, QUERIES, KEYS), bool)
    if "causal" in names:
        expected &= (keys <= queries)[:, None]
    if "window" in names:
        expected &= (np.abs(queries - keys) < 2)[:, None]
    if "segments" in names:
        expected &= (QUERY_SEGMENTS[:, :, None] == KEY_SEGMENTS[:, None, :])[:, None]
    if "padding" in names:
        expected &= VALID[:, None, None, :]
    if "lengths" in names:
        expected &= (np.arange(KEYS) < LENGTHS[:, None])[:, None, None, :]
    if "explicit" in names:
        expected &= ALLOWED
    np.testing.assert_array_equal(whole(combined(names)), expected)


@given(
    names=combinations,
    query_start=st.integers(0, QUERIES - 2),
    key_start=st.integers(0, KEYS - 3),
)
def test_block_is_a_slice_of_the_whole(names, query_start, key_start):
    mask = combined(names)
    block = np.broadcast_to(mask.block(query_start, 2, key_start, 3), (BATCH, HEADS, 2, 3))
    part = whole(mask)[:, :, query_start : query_start + 2, key_start : key_start + 3]
    np.testing.assert_array_equal(block, part)


def test_positions_alone_mask_nothing():
    assert RULES["positions"].materialize(QUERIES, KEYS) is None


def test_a_mask_is_an_argument_of_a_program():
    mask = masks.causal() & masks.sliding_window(2) & masks.padding_behind(jnp.array([2]))
    found = jax.jit(lambda mask: mask.materialize(3, 3))(mask)
    assert found[0, 0].tolist() == [[True, False, False], [True, True, False], [False, True, False]]
    with pytest.raises(dataclasses.FrozenInstanceError):
        mask.causal = False


def test_tokens_before_the_padding():
    found = masks.real_tokens(3, jnp.array([0, 2, 3]))
    assert found.tolist() == [[False] * 3, [True, True, False], [True] * 3]


BY_INDEX = {
    "key positions": masks.at_positions(jnp.zeros((1, 2), int), jnp.zeros((1, 3), int)),
    "segments": masks.segments(jnp.zeros((1, 3), int)),
    "padding": masks.padding(jnp.ones((1, 3), bool)),
    "lengths": masks.padding_behind(jnp.array([3])),
    "explicit": masks.explicit(jnp.ones((1, 1, 2, 3), bool)),
}


def test_keys_elsewhere_have_no_rules_by_index():
    places = jnp.array([[4, 0, 1]])
    queries = masks.causal() & masks.at_positions(jnp.array([[1, 4]]))
    moved = queries.with_keys_at(places)
    assert seen(moved, 2, 3)[0, 0].tolist() == [[False, True, True], [True, True, True]]
    for mask in BY_INDEX.values():
        assert mask.with_keys_at(None) is mask
        with pytest.raises(ValueError, match="rules by the index of keys"):
            mask.with_keys_at(places)


@pytest.mark.parametrize(
    ("mask", "queries", "hides"),
    [
        (masks.full(), 4, False),
        (masks.causal(), 4, False),
        (masks.sliding_window(2), 3, False),
        # With more of them a query may stand too far behind the last key.
        (masks.sliding_window(2), 4, True),
        (masks.at_positions(jnp.zeros((1, 4), int)), 3, True),
        *((mask, 3, True) for mask in BY_INDEX.values()),
    ],
)
def test_some_masks_may_hide_all_keys(mask, queries, hides):
    assert mask.may_hide_all_keys(queries, 3) == hides
