import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformer.pictures.confusion import draw_confusion_matrix
from transformer.scoring.classification import (
    calibration_error,
    class_accuracies,
    classification_scores,
    confusion_matrix,
    most_confused,
    regression_scores,
    top_accuracy,
)

# Class 0 is found in 2 of 3, class 1 in 1 of 2, class 2 in 1 of 1.
LABELS = np.array([0, 0, 0, 1, 1, 2])
PREDICTED = np.array([0, 0, 1, 1, 2, 2])
MATRIX = [[2, 1, 0], [0, 1, 1], [0, 0, 1]]


def test_confusion_matrix():
    matrix = confusion_matrix(PREDICTED, LABELS, 3)
    assert matrix.tolist() == MATRIX
    assert confusion_matrix(PREDICTED.astype(np.int8), LABELS, 4)[:3, :3].tolist() == MATRIX


def test_many_classes_of_small_integers():
    # 199 * 200 + 199 is no int16.
    last = np.array([199], np.int16)
    assert np.argwhere(confusion_matrix(last, last, 200)).tolist() == [[199, 199]]


def test_three_classes():
    scores = classification_scores(PREDICTED, LABELS, 3)
    assert scores["accuracy"] == pytest.approx(4 / 6)
    # F1 is 2 * right / (found + true).
    assert scores["macro_f1"] == pytest.approx((4 / 5 + 2 / 4 + 2 / 3) / 3)
    # (right * n - found . true) / sqrt((n^2 - found . found) (n^2 - true . true)):
    # found are 2, 2, 2 of the classes and true are 3, 2, 1.
    assert scores["matthews"] == pytest.approx((4 * 6 - 12) / np.sqrt((36 - 12) * (36 - 14)))


def test_two_classes():
    # Matthews' own formula: of true and false positives and negatives there are 4, 3, 2 and 1.
    labels = np.array([1] * 4 + [0] * 3 + [0] * 2 + [1])
    predicted = np.array([1] * 4 + [0] * 3 + [1] * 2 + [0])
    scores = classification_scores(predicted, labels, 2)
    assert scores["matthews"] == pytest.approx((4 * 3 - 2 * 1) / np.sqrt(6 * 5 * 5 * 4))
    assert scores["macro_f1"] == pytest.approx((8 / 11 + 6 / 9) / 2)


def test_classes_that_do_not_occur_do_not_count():
    assert classification_scores(PREDICTED, LABELS, 9) == classification_scores(
        PREDICTED, LABELS, 3
    )
    # One that is only predicted does.
    scores = classification_scores(np.array([0, 2]), np.array([0, 0]), 5)
    assert scores == {"accuracy": 0.5, "macro_f1": pytest.approx(1 / 3), "matthews": 0.0}


@pytest.mark.parametrize(("predicted", "accuracy"), [([0, 0, 0], 1.0), ([1, 1, 1], 0.0), ([], 0.0)])
def test_undefined_scores_are_zero(predicted, accuracy):
    predicted = np.array(predicted, int)
    scores = classification_scores(predicted, np.zeros_like(predicted), 2)
    assert scores == {"accuracy": accuracy, "macro_f1": accuracy, "matthews": 0.0}


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1), st.permutations(range(5))
)
def test_names_of_classes_do_not_matter(pairs, renamed):
    predicted, labels = np.array(pairs).T
    renamed = np.array(renamed)
    scores = classification_scores(predicted, labels, 5)
    assert classification_scores(renamed[predicted], renamed[labels], 5) == pytest.approx(scores)
    assert all(-1.0 - 1e-12 <= score <= 1.0 + 1e-12 for score in scores.values())
    if len(set(labels)) > 1:
        assert set(classification_scores(labels, labels, 5).values()) == {1.0}


@pytest.mark.parametrize(
    ("predicted", "labels", "message"),
    [
        ([0, 3], [0, 1], "predicted has classes from 0 to 3: there are 3"),
        ([0, 1], [-1, 1], "labels has classes from -1 to 1"),
    ],
)
def test_what_does_not_fit(predicted, labels, message):
    with pytest.raises(ValueError, match=message):
        classification_scores(np.array(predicted), np.array(labels), 3)


SCORES = np.array([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3], [0.3, 0.3, 0.4]])


@pytest.mark.parametrize(("count", "expected"), [(1, 1 / 3), (2, 2 / 3), (3, 1.0), (5, 1.0)])
def test_top_accuracy(count, expected):
    # The true classes come first, third and second, the last because of two equals.
    assert top_accuracy(SCORES, np.array([1, 1, 0]), count) == pytest.approx(expected)


def few_scores(*numbers):
    """Rows of four scores, many of them equal."""
    rows = st.lists(st.sampled_from(numbers), min_size=4, max_size=4)
    return st.lists(st.tuples(rows, st.integers(0, 3)), min_size=1, max_size=9)


@given(few_scores(0.0, 0.5, 1.0), st.integers(1, 4))
def test_top_accuracy_by_sorting(examples, count):
    rows, labels = zip(*examples, strict=True)
    right = 0
    for row, label in examples:
        ranked = sorted(range(4), key=lambda place, row=row: (-row[place], place))
        right += label in ranked[:count]
    found = top_accuracy(np.array(rows, np.float32), np.array(labels), count)
    assert found == pytest.approx(right / len(examples))


@given(few_scores(0.0, 1.0))
def test_top_accuracy_of_one_is_the_accuracy(examples):
    rows, labels = map(np.array, zip(*examples, strict=True))
    expected = classification_scores(rows.argmax(axis=1), labels, 4)["accuracy"]
    assert top_accuracy(rows, labels, 1) == pytest.approx(expected)


def test_top_accuracy_of_scores_that_say_nothing():
    labels = np.arange(10)
    assert top_accuracy(np.zeros((10, 10)), labels, 5) == 0.5
    assert top_accuracy(np.full((10, 10), np.nan), labels, 5) == 0.0
    assert top_accuracy(np.zeros((0, 10)), labels[:0], 5) == 0.0


def test_calibration_by_hand():
    # Three examples of 0.6 of which one is right, and one of 0.9 that is right.
    probabilities = np.array([[0.6, 0.4], [0.6, 0.4], [0.4, 0.6], [0.1, 0.9]])
    labels = np.array([0, 1, 0, 1])
    expected = (3 * abs(1 / 3 - 0.6) + 1 * abs(1 - 0.9)) / 4
    assert calibration_error(probabilities, labels, 10) == pytest.approx(expected)
    # In one part too much confidence and too little make up for one another.
    expected = abs(2 / 4 - (3 * 0.6 + 0.9) / 4)
    assert calibration_error(probabilities, labels, 1) == pytest.approx(expected)


def test_perfect_calibration():
    # Of ten examples with a confidence of 0.7 seven are right, and all of ten that are sure.
    probabilities = np.array([[0.7, 0.3]] * 10 + [[0.0, 1.0]] * 10)
    labels = np.array([0] * 7 + [1] * 3 + [1] * 10)
    assert calibration_error(probabilities, labels) == pytest.approx(0.0, abs=1e-12)
    assert calibration_error(probabilities[10:], 1 - labels[10:]) == 1.0
    assert calibration_error(np.zeros((0, 2)), labels[:0]) == 0.0


@pytest.mark.parametrize("num_bins", [1, 4, 15])
def test_calibration_bin_by_bin(num_bins):
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([0.5] * 3, 200).astype(np.float32)
    labels = rng.integers(0, 3, 200)
    expected = 0.0
    for index in range(num_bins):
        confidences, hits = [], []
        for row, label in zip(probabilities, labels, strict=True):
            if index <= row.max() * num_bins < index + 1 or (
                index == num_bins - 1 and row.max() == 1.0
            ):
                confidences.append(float(row.max()))
                hits.append(row.argmax() == label)
        if hits:
            expected += len(hits) / 200 * abs(np.mean(hits) - np.mean(confidences))
    assert calibration_error(probabilities, labels, num_bins) == pytest.approx(expected)


def test_accuracy_within_each_class():
    found = class_accuracies(confusion_matrix(PREDICTED, LABELS, 4))
    np.testing.assert_allclose(found, [2 / 3, 1 / 2, 1.0, np.nan])
    # Without warnings, though nothing is divided by nothing.
    assert np.isnan(class_accuracies(np.zeros((2, 2), int))).all()


def test_regression():
    predicted = np.array([1.0, 2.0, 2.0, 5.0], np.float32)
    targets = np.array([1.0, 3.0, 2.0, 10.0], np.float32)
    scores = regression_scores(predicted, targets)
    # Around the means 2.5 and 4: products 4.5 + 0.5 + 1 + 15, squares 9 and 50.
    assert scores["pearson"] == pytest.approx(21 / np.sqrt(9 * 50))
    # Ranks 1, 2.5, 2.5, 4 and 1, 3, 2, 4, around 2.5: products 4.5, squares 4.5 and 5.
    assert scores["spearman"] == pytest.approx(4.5 / np.sqrt(4.5 * 5))
    assert scores["mean_squared_error"] == pytest.approx((0 + 1 + 0 + 25) / 4)


def test_spearman_sees_order_only():
    numbers = np.array([0.1, 5.0, -2.0, 3.0])
    scores = regression_scores(np.exp(numbers), numbers)
    assert scores["spearman"] == pytest.approx(1.0)
    assert scores["pearson"] < 0.99
    assert regression_scores(-numbers, numbers)["spearman"] == pytest.approx(-1.0)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_correlations_of_constants_are_zero(count):
    constant = np.full(count, 0.1)
    for pair in ((constant, np.arange(count) * 1.0), (np.arange(count) * 1.0, constant)):
        scores = regression_scores(*pair)
        assert scores["pearson"] == scores["spearman"] == 0.0
        assert np.isfinite(scores["mean_squared_error"])


def test_most_confused():
    matrix = np.array([[9, 1, 4], [4, 9, 0], [0, 2, 9]])
    names = ["a", "b", "c"]
    expected = [("a", "c", 4), ("b", "a", 4), ("c", "b", 2), ("a", "b", 1)]
    assert most_confused(matrix, names) == expected
    assert most_confused(matrix, names, count=2) == expected[:2]
    assert most_confused(np.eye(3, dtype=int), names) == []


@pytest.mark.parametrize(
    "names",
    [["only"], ["no", "$yes$", "日本" * 30], [f"{number}" for number in range(13)]],
    ids=["1", "3", "13"],
)
def test_pictures(tmp_path, monkeypatch, names):
    from matplotlib.axes import Axes

    drawn = {"counts": []}
    text, image, title = Axes.text, Axes.imshow, Axes.set_title
    monkeypatch.setattr(
        Axes, "text", lambda *a, **k: drawn["counts"].append(a[1:4]) or text(*a, **k)
    )
    monkeypatch.setattr(Axes, "imshow", lambda *a, **k: drawn.update(shares=a[1]) or image(*a, **k))
    monkeypatch.setattr(
        Axes, "set_title", lambda *a, **k: drawn.update(title=a[1]) or title(*a, **k)
    )
    count = len(names)
    matrix = np.arange(count**2).reshape(count, count)
    path = tmp_path / "confusion.png"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_confusion_matrix(matrix, names, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    if count == 1:
        assert drawn["shares"].tolist() == [[0.0]]
        assert drawn["title"] == "accuracy 0.0% of 0"
    if count == 3:
        assert drawn["shares"][1].tolist() == pytest.approx([3 / 12, 4 / 12, 5 / 12])
        assert drawn["title"] == "accuracy 33.3% of 36"
        assert (2, 1, "5") in drawn["counts"]
    assert len(drawn["counts"]) == (count**2 if count <= 12 else 0)
