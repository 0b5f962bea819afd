"""The rules of a search by hand; tests/decoding/test_beam.py compares them with published ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer.errors import ConfigError
from transformer.limits import MOST
from transformer.ops import search_rules
from transformer.ops.search_rules import Search, length_penalty

NEVER = -np.inf
ENDS = (4,)
ruled = jax.jit(search_rules.ruled, static_argnames=("search", "ends"))


def found(search, written, step, scores=None, at_limit=False):
    """Scores of five tokens behind one text; without others all were 1."""
    scores = jnp.ones(5) if scores is None else jnp.asarray(scores)
    written = jnp.asarray(written)[None, None]
    limits = jnp.asarray([at_limit])
    return ruled(scores[None, None], written, jnp.asarray(step), limits, search, ENDS)[
        0, 0
    ].tolist()


def banned(search, written, step, **options):
    return [n for n, score in enumerate(found(search, written, step, **options)) if score == NEVER]


def test_usual_rules_change_nothing():
    scores = [2.0, -1.0, 4.0, -3.0, 0.5]
    assert found(Search(), [0, 2, 3, 4], 2, scores, at_limit=True) == scores


def test_what_is_written_is_penalised():
    search = Search(repetition_penalty=2.0)
    # The begin token, 2 and 3 are written, and 4 is not yet.
    scores = found(search, [0, 2, 3, 4], 2, [2.0, -1.0, 4.0, -3.0, 0.5])
    assert scores == [1.0, -1.0, 2.0, -6.0, 0.5]
    assert found(search, [0, 1, 1], 1, [0.5, -2.0, 1.0, 1.0, 1.0]) == [0.25, -4.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("size", "written", "step", "never"),
    [
        (1, [0, 2, 3, 4], 2, [0, 2, 3]),
        (2, [0, 2, 3, 2, 1], 3, [3]),
        (2, [0, 2, 3, 4, 1], 3, []),
        (3, [0, 2, 3, 4, 2, 3, 1], 5, [4]),
        (3, [0, 2, 3, 4, 1, 3, 1], 5, []),
        # As long as what can be written, and longer.
        (3, [1, 1, 1], 2, [1]),
        (3, [1, 1, 1], 1, []),
        (4, [1, 1, 1], 2, []),
    ],
)
def test_nothing_of_this_length_occurs_twice(size, written, step, never):
    assert banned(Search(no_repeat_ngram_size=size), written, step) == never


@pytest.mark.parametrize(
    ("unwritten", "written", "step", "never"),
    [
        ("4", [0, 1, 1], 0, [4]),
        ("4; 2,3", [0, 2, 1], 1, [3, 4]),
        ("4; 2,3", [0, 1, 2], 1, [4]),
        ("0,2,3", [0, 2, 1], 1, [3]),
        ("1,2,3", [0, 2, 1], 1, []),
        # Nothing is before the beginning of a text, neither its end nor itself.
        ("1,0,3", [0, 2, 1], 0, []),
        ("0,0,3", [0, 2, 1], 0, []),
    ],
)
def test_some_sequences_are_never_written(unwritten, written, step, never):
    assert banned(Search(unwritten=unwritten), written, step) == never


def test_short_outputs_do_not_end():
    search = Search(min_new_tokens=2)
    assert [banned(search, [0, 1, 1, 1], step) for step in range(4)] == [[4], [4], [], []]


def test_first_and_last_tokens():
    first = Search(forced_first=(1, 3), min_new_tokens=1)
    assert found(first, [0, 2, 2], 0) == [NEVER, 0.0, NEVER, 0.0, NEVER]
    assert found(first, [0, 2, 2], 1) == [1.0] * 5
    last = Search(forced_last=(4,))
    assert found(last, [0, 2, 2], 1, at_limit=True) == [NEVER] * 4 + [0.0]
    assert found(last, [0, 2, 2], 0) == [1.0] * 5
    unwritten = Search(unwritten_first=(2, 3))
    assert [banned(unwritten, [0, 1, 1], step) for step in range(3)] == [[2, 3], [], []]
    # Behind a forced token comes the first one that is chosen.
    behind = Search(unwritten_first=(2, 3), forced_first=(2,))
    assert [banned(behind, [0, 1, 1], step) for step in range(3)] == [[0, 1, 3, 4], [2, 3], []]


def test_rows_and_beams_have_rules_of_their_own():
    written = jnp.array([[[0, 1, 2], [0, 2, 1]], [[0, 1, 1], [0, 4, 4]], [[0, 4, 1], [0, 3, 3]]])
    search = Search(no_repeat_ngram_size=1, unwritten="3", forced_last=(4,))
    limits = jnp.array([False, True, False])
    scores = ruled(jnp.ones((3, 2, 5)), written, jnp.asarray(1), limits, search, ENDS)
    never = [[np.flatnonzero(beam == NEVER).tolist() for beam in row] for row in np.asarray(scores)]
    assert never == [[[0, 1, 3], [0, 2, 3]], [[0, 1, 2, 3]] * 2, [[0, 3, 4], [0, 3]]]


def test_penalties_of_lengths():
    lengths = jnp.array([1.0, 7.0, 49.0])
    np.testing.assert_allclose(length_penalty(lengths, 0.5), [1.0, 2**0.5, 3.0], rtol=1e-6)
    kept = length_penalty(lengths, 0.5, "transformers")
    np.testing.assert_allclose(kept, [1.0, 7**0.5, 7.0], rtol=1e-6)
    np.testing.assert_allclose(length_penalty(lengths, 0.0), 1.0)


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [("wu", (0.0, 8.0), (-0.1, 8.1)), ("transformers", (-8.0, 0.0, 8.0), (-8.1, 8.1))],
)
def test_penalties_have_limits(kind, right, wrong):
    for alpha in right:
        Search(kind=kind).check_penalty(alpha, "penalty")
    for alpha in wrong:
        with pytest.raises(ConfigError, match=f"penalty is {alpha}"):
            Search(kind=kind).check_penalty(alpha, "penalty")


def test_limits_leave_room_for_the_end():
    assert Search().limits() == {}
    assert Search(max_new_tokens=1).limits() == {"max_length": 0}
    assert Search(max_new_tokens=5, kind="transformers").limits() == {"max_length": 5}


def test_sequences_are_read():
    assert Search(unwritten=f"58100; 4,{MOST}").sequences() == ((58100,), (4, MOST))
    assert Search(unwritten=" ").sequences() == ()
    for wrong in ("a", "4;", "4,,5", f"{MOST + 1}"):
        with pytest.raises(ConfigError, match="separate token ids by ,"):
            Search(unwritten=wrong).check()
