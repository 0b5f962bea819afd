"""ROUGE against numbers that the package rouge-score 0.1.2 gives, without stemming."""

import pytest

from transformer.scoring.rouge import common_subsequences, overlap, rouge_scores

# Output, reference, and rouge1, rouge2, rougeL and rougeLsum of the package.
CASES = [
    ("The cat sat on the mat.", "On the mat sat a cat!", 83.333333, 40.0, 50.0, 50.0),
    (
        "Return a list\nof all the open files.",
        "Return the list of open files.\nClose all files.",
        *(82.352941, 26.666667, 58.823529, 70.588235),
    ),
    ("a b c a b", "b a c b a b", 90.909091, 22.222222, 72.727273, 72.727273),
    ("It's 3.5 km", "it is 3 km\n5 cats", 72.727273, 0.0, 54.545455, 72.727273),
    ("", "x", 0.0, 0.0, 0.0, 0.0),
    ("Straße und Öl", "strasse und ol", 28.571429, 0.0, 28.571429, 28.571429),
    (
        "one two\nthree one\ntwo",
        "two one three\none two two",
        *(90.909091, 44.444444, 72.727273, 72.727273),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0][:12] or "empty")
def test_scores_are_those_of_the_package(case):
    output, reference, *expected = case
    scores = rouge_scores([output], [reference])
    assert list(scores) == ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    assert list(scores.values()) == pytest.approx(expected, abs=1e-5)


def test_scores_are_means_over_pairs():
    assert rouge_scores(["a b", "x"], ["a b", "y"])["rouge1"] == 50.0
    assert rouge_scores([], []) == dict.fromkeys(["rouge1", "rouge2", "rougeL", "rougeLsum"], 0.0)
    with pytest.raises(ValueError, match="argument 2"):
        rouge_scores(["a"], ["a", "b"])


def test_a_word_counts_as_often_as_both_have_it():
    assert overlap("the the the", "the cat", 1) == pytest.approx(2 * 1 / 5)
    assert common_subsequences("cat", "cat\ncat") == pytest.approx(2 * 1 / 3)
