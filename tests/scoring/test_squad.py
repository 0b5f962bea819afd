import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformer.data.labels.squad import Answer, Question
from transformer.errors import DataError
from transformer.scoring.squad import (
    best_null_threshold,
    exact_match,
    f1,
    normalize_answer,
    squad_scores,
)


def question(name, *answers):
    return Question(name, "?", "context", tuple(Answer(text, 0) for text in answers))


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("The  Eiffel\tTower.\n", "eiffel tower"),
        ("a an the", ""),
        ("", ""),
        ("?!", ""),
        ("another theme, banana", "another theme banana"),
        # Punctuation leaves no gap, so what it joins is one word.
        ("at 5 a.m.", "at 5 am"),
        ("the-end", "theend"),
        ("a-", ""),
        ("O'Neill's", "oneills"),
        # Only ASCII punctuation goes.
        ("“the” … Café", "“ ” … café"),
        ("THE ÉTAT", "état"),
        ("1,000.5", "10005"),
    ],
)
def test_normalized(text, normalized):
    assert normalize_answer(text) == normalized


@pytest.mark.parametrize(
    ("prediction", "truth", "exact", "overlap"),
    [
        ("The Eiffel Tower", "eiffel tower!", 1, 1),
        # 2 of 3 words predicted are right, 2 of 2 are found: 2 * (2/3 * 1) / (2/3 + 1).
        ("big Eiffel Tower", "Eiffel Tower", 0, 0.8),
        ("tower Eiffel", "Eiffel Tower", 0, 1),
        # A word counts as often as both have it: 1 of 3, and 1 of 2.
        ("no no no", "no way", 0, 0.4),
        ("Paris", "London", 0, 0),
        ("", "London", 0, 0),
        ("the", "London", 0, 0),
        ("London", "", 0, 0),
        ("", "", 1, 1),
        ("a", "the!", 1, 1),
        ("", "an", 1, 1),
    ],
)
def test_one_answer(prediction, truth, exact, overlap):
    assert exact_match(prediction, truth) == exact
    assert f1(prediction, truth) == pytest.approx(overlap)
    assert f1(truth, prediction) == pytest.approx(overlap)


def test_scores_of_version_1():
    questions = [question("a", "Rome", "in Rome"), question("b", "red"), question("c", "x y z")]
    # The second answer is met; none is; 1 of 1 words right and 1 of 3 found.
    scores = squad_scores({"a": "In Rome", "b": "blue", "c": "y", "more": ""}, questions)
    assert scores == pytest.approx({"exact_match": 100 / 3, "f1": (100 + 0 + 50) / 3})


def test_scores_of_version_2():
    questions = [question("a", "Rome"), question("b", "one two"), question("c"), question("d")]
    predictions = {"a": "", "b": "two", "c": "", "d": "Rome"}
    assert squad_scores(predictions, questions) == pytest.approx(
        {
            "exact_match": 25,
            "f1": (0 + 200 / 3 + 100 + 0) / 4,
            "answerable_exact_match": 0,
            "answerable_f1": 100 / 3,
            "unanswerable_accuracy": 50,
        }
    )


def test_scores_of_one_kind_are_not_said_twice():
    assert squad_scores({"c": ""}, [question("c")]) == {"exact_match": 100, "f1": 100}


def test_an_answer_without_words_counts_if_there_is_no_other():
    assert squad_scores({"a": ""}, [question("a", "The", "Rome")])["f1"] == 0
    assert squad_scores({"a": "the"}, [question("a", "A")])["exact_match"] == 100
    # No answer is met by what is nothing once normalized.
    assert squad_scores({"a": "the"}, [question("a")])["exact_match"] == 100


def test_missing_predictions():
    questions = [question(name, "x") for name in "abc"]
    with pytest.raises(DataError, match=r"2 of 3 questions have no prediction.*first of them 'b'"):
        squad_scores({"a": "x"}, questions)
    with pytest.raises(DataError, match="3 of 3 questions have no difference"):
        best_null_threshold(dict.fromkeys("abc", "x"), {}, questions)
    with pytest.raises(DataError, match="no questions"):
        squad_scores({}, [])


QUESTIONS = [question("a", "x"), question("b", "x"), question("c"), question("d")]


def test_the_best_threshold_parts_the_questions():
    differences = {"a": -3.0, "b": 0.5, "c": 1.5, "d": 2.0}
    best = best_null_threshold(dict.fromkeys("abcd", "x"), differences, QUESTIONS)
    assert best == (0.5, 100)


def test_a_threshold_that_leaves_all_without_answer():
    differences = {"a": 3.0, "b": 4.0, "c": 1.0, "d": 2.0}
    threshold, score = best_null_threshold(dict.fromkeys("abcd", "y"), differences, QUESTIONS)
    assert threshold < 1
    assert score == 50


def test_questions_of_equal_difference_are_not_parted():
    differences = dict.fromkeys("abcd", 1.0)
    threshold, score = best_null_threshold(dict.fromkeys("abcd", "x"), differences, QUESTIONS)
    # To answer all is as good as to answer none, but not better.
    assert threshold < 1
    assert score == 50


def test_no_prediction_at_all():
    differences = {"a": -1.0, "b": math.inf, "c": math.inf, "d": 0.0}
    predictions = {"a": "x", "b": "", "c": "", "d": "x"}
    assert best_null_threshold(predictions, differences, QUESTIONS) == (-1, 75)


@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from(["x", "x y", "z"]), st.integers(-3, 3)),
        min_size=1,
        max_size=8,
    )
)
def test_no_threshold_is_better(cases):
    names = [str(index) for index in range(len(cases))]
    questions = [
        question(name, *(["x y"] if answerable else []))
        for name, (answerable, _, _) in zip(names, cases, strict=True)
    ]
    predictions = {name: text for name, (_, text, _) in zip(names, cases, strict=True)}
    differences = {name: float(value) for name, (_, _, value) in zip(names, cases, strict=True)}

    def with_threshold(threshold):
        texts = {n: "" if differences[n] > threshold else predictions[n] for n in names}
        return squad_scores(texts, questions)["f1"]

    threshold, score = best_null_threshold(predictions, differences, questions)
    assert score == pytest.approx(with_threshold(threshold))
    assert score == pytest.approx(max(with_threshold(half / 2) for half in range(-9, 9)))
