import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformer.data.text.masking import (
    Masked,
    Masking,
    mask_tokens,
    num_predictions,
    unigram_entropy,
)
from transformer.errors import ConfigError
from transformer.ops.losses import IGNORED

VOCABULARY, NUM_SPECIAL, MASK, FIRST = 1000, 5, 4, 10
# Original tokens are from FIRST on, so that those below can only be random.
RANDOM_IDS = np.arange(NUM_SPECIAL, VOCABULARY)


def make(rows, length, seed=0):
    """Tokens without special ones, and where they may be masked: some places of each row."""
    random = np.random.default_rng(seed)
    tokens = random.integers(FIRST, VOCABULARY, (rows, length))
    fractions = random.random((rows, 1)) * 1.2
    return tokens, random.random((rows, length)) < fractions


def masked(tokens, maskable, masking=None, *, seed=0, generator=None, **options):
    return mask_tokens(
        tokens,
        maskable,
        masking or Masking(),
        mask=MASK,
        random_ids=RANDOM_IDS,
        generator=generator or np.random.default_rng(seed),
        **options,
    )


def predictions(found: Masked):
    """The places that are predicted in each row, whatever order they come in."""
    return [
        row[labels != IGNORED].tolist()
        for row, labels in zip(found.positions, found.labels, strict=True)
    ]


def assert_consistent(tokens, maskable, found):
    assert {array.dtype for array in found} == {np.dtype("int32")}
    changed = np.zeros(tokens.shape, bool)
    for row, places in enumerate(predictions(found)):
        count = len(places)
        assert places == sorted(set(places))
        assert maskable[row, places].all()
        np.testing.assert_array_equal(found.labels[row, :count], tokens[row, places])
        assert (found.labels[row, count:] == IGNORED).all()
        assert (found.positions[row, count:] == 0).all()
        changed[row, places] = True
    np.testing.assert_array_equal(found.tokens[~changed], tokens[~changed])
    shown = found.tokens[changed]
    assert ((shown == MASK) | (shown >= NUM_SPECIAL)).all()


@given(
    rows=st.integers(0, 6),
    length=st.integers(1, 60),
    rate=st.floats(0.01, 1.0),
    seed=st.integers(0, 999),
)
def test_numbers_of_predictions_are_exact(rows, length, rate, seed):
    tokens, maskable = make(rows, length, seed)
    before = tokens.copy()
    found = masked(tokens, maskable, Masking(rate=rate), seed=seed)
    np.testing.assert_array_equal(tokens, before)
    assert found.tokens.shape == (rows, length)
    assert found.positions.shape == found.labels.shape == (rows, num_predictions(length, rate))
    assert_consistent(tokens, maskable, found)
    expected = [
        min(number, max(1, round(rate * number))) for number in maskable.sum(axis=1).tolist()
    ]
    assert [len(places) for places in predictions(found)] == expected


def test_num_predictions():
    assert num_predictions(128, 0.15) == 19
    assert num_predictions(512, 0.15) == 77
    assert num_predictions(2, 0.15) == 1


def within(count, trials, chance):
    """Whether a count is within 4.5 standard deviations of what is expected."""
    return abs(count - trials * chance) < 4.5 * math.sqrt(trials * chance * (1 - chance))


def test_what_is_shown():
    tokens = np.full((2000, 40), FIRST)
    maskable = np.ones(tokens.shape, bool)
    found = masked(tokens, maskable, Masking(rate=0.25))
    shown = np.take_along_axis(found.tokens, found.positions, axis=1)
    total = shown.size
    assert total == 2000 * 10
    assert within(np.sum(shown == MASK), total, 0.8)
    random_here = 0.1 / len(RANDOM_IDS)
    assert within(np.sum(shown == FIRST), total, 0.1 + random_here)
    random = shown[(shown != MASK) & (shown != FIRST)]
    assert within(len(random), total, 0.1 - random_here)
    # All ids are drawn alike, from the first to the last.
    assert within(np.sum(random < VOCABULARY // 2), len(random), 495 / 995)
    for part in np.array_split(np.delete(RANDOM_IDS, FIRST - NUM_SPECIAL), 10):
        assert within(np.isin(random, part).sum(), len(random), len(part) / 994)


@pytest.mark.parametrize(
    ("masking", "kept", "masks"),
    [
        (Masking(mask_fraction=1.0, random_fraction=0.0), False, True),
        (Masking(mask_fraction=0.0, random_fraction=0.0), True, False),
        (Masking(mask_fraction=0.0, random_fraction=1.0), False, False),
    ],
)
def test_only_one_kind(masking, kept, masks):
    tokens, _ = make(200, 40)
    found = masked(tokens, np.ones(tokens.shape, bool), masking)
    shown = np.take_along_axis(found.tokens, found.positions, axis=1)
    assert (np.mean(shown == found.labels) > 0.5) == kept
    assert (shown == MASK).all() == (shown == MASK).any() == masks


@pytest.mark.parametrize("whole_words", [False, True])
def test_all_places_are_as_likely(whole_words):
    tokens, _ = make(3000, 20)
    maskable = np.ones(tokens.shape, bool)
    maskable[:, [0, 15]] = False
    words_of_one = np.zeros(VOCABULARY, bool)
    masking = Masking(rate=0.2, whole_words=whole_words)
    found = masked(tokens, maskable, masking, continues=words_of_one)
    counts = np.bincount(np.concatenate(predictions(found)), minlength=20)
    assert counts[[0, 15]].tolist() == [0, 0]
    for place in np.flatnonzero(maskable[0]):
        assert within(counts[place], 3000, 4 / 18)


def test_the_generator_decides():
    tokens, maskable = make(8, 40)
    first, again, other = (masked(tokens, maskable, seed=seed) for seed in (1, 1, 2))
    for one, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, same)
    assert predictions(first) != predictions(other)


@pytest.mark.parametrize("whole_words", [False, True])
def test_rows_with_their_own_generators_do_not_depend_on_others(whole_words):
    tokens, maskable = make(8, 40)
    options = {
        "masking": Masking(whole_words=whole_words),
        "continues": np.arange(VOCABULARY) > VOCABULARY // 2,
    }
    whole = masked(
        tokens, maskable, generator=[np.random.default_rng(row) for row in range(8)], **options
    )
    for row in range(8):
        one = slice(row, row + 1)
        alone = masked(
            tokens[one], maskable[one], generator=[np.random.default_rng(row)], **options
        )
        for array, expected in zip(alone, whole, strict=True):
            np.testing.assert_array_equal(array, expected[one])


def find_words(continues, tokens, maskable):
    """The places of each word of a row, found one token after another."""
    words = []
    for place, token in enumerate(tokens):
        if not maskable[place]:
            continue
        if continues[token] and place > 0 and maskable[place - 1]:
            words[-1].append(place)
        else:
            words.append([place])
    return words


@given(length=st.integers(1, 50), rate=st.floats(0.05, 0.6), seed=st.integers(0, 999))
def test_whole_words(length, rate, seed):
    tokens, maskable = make(5, length, seed)
    continues = np.random.default_rng(seed).random(VOCABULARY) < 0.4
    masking = Masking(rate=rate, whole_words=True)
    found = masked(tokens, maskable, masking, continues=continues, seed=seed)
    assert_consistent(tokens, maskable, found)
    for row, places in enumerate(predictions(found)):
        number = int(maskable[row].sum())
        most = min(number, max(1, round(rate * number)))
        words = find_words(continues, tokens[row], maskable[row])
        if all(len(word) > most for word in words):
            assert len(places) == most
            continue
        chosen = [word for word in words if word[0] in places]
        assert sorted(place for word in chosen for place in word) == places
        # What is left out would not have fitted.
        left = [len(word) for word in words if word[0] not in places]
        assert len(places) <= most
        assert not left or min(left) > most - len(places)


def test_words_come_in_random_order():
    # Words of 1, 2 and 3 tokens in 6 places, with room for 3 tokens.
    continues = np.arange(VOCABULARY) >= 100
    tokens = np.tile([10, 11, 111, 12, 112, 113], (3000, 1))
    masking = Masking(rate=0.5, whole_words=True)
    found = masked(tokens, np.ones(tokens.shape, bool), masking, continues=continues)
    chosen = [str(places) for places in predictions(found)]
    assert set(chosen) == {"[0, 1, 2]", "[3, 4, 5]"}
    # The long word fits only where it is first.
    assert within(chosen.count("[3, 4, 5]"), 3000, 1 / 3)


def test_a_row_without_a_word_that_fits_predicts_pieces():
    # One word of four pieces, and one prediction.
    continues = np.arange(VOCABULARY) >= 100
    tokens = np.tile([10, 111, 112, 113], (400, 1))
    masking = Masking(rate=0.25, whole_words=True)
    found = masked(tokens, np.ones(tokens.shape, bool), masking, continues=continues)
    assert {len(places) for places in predictions(found)} == {1}
    assert set(found.positions.ravel().tolist()) == {0, 1, 2, 3}


def test_whole_words_need_to_know_words():
    tokens, maskable = make(2, 10)
    with pytest.raises(ValueError, match="continues"):
        masked(tokens, maskable, Masking(whole_words=True))


@pytest.mark.parametrize(
    "fields",
    [
        {"rate": 0.0},
        {"rate": 1.1},
        {"mask_fraction": 0.95},
        {"random_fraction": -0.1},
        {"mask_fraction": -0.1},
    ],
)
def test_impossible_masking(fields):
    with pytest.raises(ConfigError, match=str(next(iter(fields.values())))):
        Masking(**fields)


def test_fractions_may_fill_the_whole():
    Masking(rate=1.0, mask_fraction=0.7, random_fraction=0.3)


def test_unigram_entropy():
    np.testing.assert_allclose(unigram_entropy(np.array([3, 5, 3, 5]), 6), math.log(2))
    ids = np.array([[1, 1, IGNORED], [1, 2, IGNORED]])
    expected = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    np.testing.assert_allclose(unigram_entropy(ids, 6), expected)
    assert unigram_entropy(np.array([4, 4]), 6) == 0.0
    assert unigram_entropy(np.array([IGNORED]), 6) == 0.0
