import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformer.scoring.entities import (
    entities,
    entity_scores,
    entity_table,
    prefixes_of,
    tag_accuracy,
    tell_entities,
)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("", set()),
        ("O O", set()),
        # IOB2.
        ("B-PER I-PER O B-LOC", {("PER", 0, 2), ("LOC", 3, 4)}),
        ("B-PER B-PER", {("PER", 0, 1), ("PER", 1, 2)}),
        # IOB1: B only between neighbours of one type.
        ("I-PER I-PER O I-PER B-PER", {("PER", 0, 2), ("PER", 3, 4), ("PER", 4, 5)}),
        # IOBES, and BILOU.
        ("B-PER I-PER E-PER S-PER O", {("PER", 0, 3), ("PER", 3, 4)}),
        ("B-PER I-PER L-PER U-PER O", {("PER", 0, 3), ("PER", 3, 4)}),
        # What none of them allows: another type, or what goes on after an end.
        ("O I-PER I-LOC", {("PER", 1, 2), ("LOC", 2, 3)}),
        ("B-PER I-LOC I-LOC", {("PER", 0, 1), ("LOC", 1, 3)}),
        ("S-PER I-PER", {("PER", 0, 1), ("PER", 1, 2)}),
        ("E-PER E-PER", {("PER", 0, 1), ("PER", 1, 2)}),
        ("B-PER E-PER I-PER O I-PER", {("PER", 0, 2), ("PER", 2, 3), ("PER", 4, 5)}),
        ("B-PER O E-PER", {("PER", 0, 1), ("PER", 2, 3)}),
        # A type may have a hyphen of its own.
        ("B-A-B I-A-B I-A", {("A-B", 0, 2), ("A", 2, 3)}),
    ],
)
def test_entities(tags, expected):
    assert entities(tags.split()) == expected


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        # Types without prefixes go on with the same before them.
        ("PER PER O LOC PER", {("PER", 0, 2), ("LOC", 3, 4), ("PER", 4, 5)}),
        # Where some types have none, only B and I are prefixes.
        ("PER E-mail E-mail O S-Bahn", {("PER", 0, 1), ("E-mail", 1, 3), ("S-Bahn", 4, 5)}),
        ("B-PER PER I-PER B-PER", {("PER", 0, 3), ("PER", 3, 4)}),
        ("X-PER B- O B", {("X-PER", 0, 1), ("B-", 1, 2), ("B", 3, 4)}),
    ],
)
def test_entities_without_prefixes(tags, expected):
    assert entities(tags.split(), prefixes_of(tags.split())) == expected


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("O PER LOC", True),
        ("B-PER I-PER", True),
        ("I-PER O", True),
        ("S-A E-A B-A I-A O", True),
        ("NOUN VERB DET PUNCT", False),
        ("LABEL_0 LABEL_1", False),
        ("NOUN B-PER", False),
    ],
)
def test_which_tags_are_of_entities(labels, expected):
    assert tell_entities(labels.split()) == expected


def test_accuracy_of_tags_of_any_kind():
    assert tag_accuracy([["NOUN", "VERB"], ["DET"]], [["NOUN", "NOUN"], ["DET"]]) == 2 / 3
    assert tag_accuracy([], []) == 0.0


SPANS = st.lists(st.tuples(st.sampled_from("ABC"), st.integers(1, 3), st.integers(0, 2)))
SCHEMES = {
    "IOB2": lambda kind, size: [f"B-{kind}"] + [f"I-{kind}"] * (size - 1),
    "IOBES": lambda kind, size: (
        [f"S-{kind}"] if size == 1 else [f"B-{kind}", *[f"I-{kind}"] * (size - 2), f"E-{kind}"]
    ),
    "BILOU": lambda kind, size: (
        [f"U-{kind}"] if size == 1 else [f"B-{kind}", *[f"I-{kind}"] * (size - 2), f"L-{kind}"]
    ),
}


@given(SPANS, st.sampled_from(sorted(SCHEMES)))
def test_entities_that_were_written_are_read(spans, scheme):
    tags, expected = [], set()
    for kind, size, gap in spans:
        expected.add((kind, len(tags), len(tags) + size))
        tags += SCHEMES[scheme](kind, size) + ["O"] * gap
    assert entities(tags) == expected


TAG = st.sampled_from(["O", *(f"{prefix}-{kind}" for prefix in "BIES" for kind in "AB")])


@given(st.lists(TAG))
def test_every_tagged_word_is_in_one_entity_of_its_type(tags):
    kinds = ["O"] * len(tags)
    for kind, first, end in entities(tags):
        assert set(kinds[first:end]) == {"O"}
        kinds[first:end] = [kind] * (end - first)
    assert kinds == [tag[2:] or "O" for tag in tags]


TRUTH = [["B-PER", "I-PER", "O", "B-LOC"], ["B-PER", "O", "B-LOC", "O"]]
# One person is right, one is too short; one place is right, one missing, one is made up.
PREDICTED = [["B-PER", "O", "O", "B-LOC"], ["B-PER", "B-LOC", "O", "O"]]


def test_scores():
    assert entity_scores(PREDICTED, TRUTH) == {
        "precision": 2 / 4,
        "recall": 2 / 4,
        "f1": 1 / 2,
        "f1_LOC": 1 / 2,
        "f1_PER": 1 / 2,
        "accuracy": 5 / 8,
    }


def test_precision_is_of_what_was_found():
    scores = entity_scores([["B-A", "B-A", "B-A", "B-B"]], [["B-A", "O", "O", "B-B"]])
    assert scores["precision"] == 2 / 4
    assert scores["recall"] == 1.0
    assert scores["f1"] == pytest.approx(2 / 3)
    assert scores["f1_A"] == 1 / 2
    assert scores["f1_B"] == 1.0


def test_the_scheme_does_not_matter():
    scores = entity_scores([["S-A", "O", "B-A", "E-A"]], [["B-A", "O", "I-A", "I-A"]])
    assert scores["f1"] == 1.0
    assert scores["accuracy"] == 1 / 4


def test_nothing_to_score():
    zeros = dict.fromkeys(("precision", "recall", "f1"), 0.0)
    assert entity_scores([], []) == {**zeros, "accuracy": 0.0}
    assert entity_scores([["O"]], [["O"]]) == {**zeros, "accuracy": 1.0}
    assert entity_scores([["O"]], [["B-A"]]) == {**zeros, "f1_A": 0.0, "accuracy": 0.0}
    assert entity_scores([["B-A"]], [["O"]]) == {**zeros, "f1_A": 0.0, "accuracy": 0.0}


@pytest.mark.parametrize(("predicted", "truth"), [([["O"]], []), ([["O", "O"]], [["O"]])])
def test_sizes_must_agree(predicted, truth):
    with pytest.raises(ValueError, match="zip"):
        entity_scores(predicted, truth)


def test_table():
    predicted = [["B-ORGANIZATION", "I-ORGANIZATION", "B-A", "O"]]
    assert entity_table(predicted, [["B-ORGANIZATION", "I-ORGANIZATION", "O", "B-A"]]) == (
        "type          precision  recall     f1  entities\n"
        "A                  0.00    0.00    0.0         1\n"
        "ORGANIZATION     100.00  100.00  100.0         1\n"
        "all               50.00   50.00   50.0         2"
    )
