"""Scores of predicted classes and numbers, and confusions of classes."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from transformer.scoring.correlation import correlation, rank_correlation


def classification_scores(
    predicted: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"], num_classes: int
) -> dict[str, float]:
    """Scores of predicted classes, as fractions; 0 where one is undefined.

    Args:
        predicted: class of each example.
        labels: the true class of each example.
        num_classes: classes are numbered from 0 to below this.

    Returns:
        `accuracy`; `macro_f1`, the mean F1 of the classes that occur, as a label or as a
        prediction; and `matthews`, the correlation coefficient of Matthews (1975) for two classes
        and of Gorodkin (2004), "Comparing two K-category assignments by a K-category correlation
        coefficient", for more.

    Raises:
        ValueError: if a class is outside of this range.
    """
    matrix = confusion_matrix(predicted, labels, num_classes).astype(np.float64)
    right, found, true = np.diagonal(matrix), matrix.sum(axis=0), matrix.sum(axis=1)
    count = matrix.sum()
    occurs = found + true > 0
    f1 = 2.0 * right[occurs] / (found + true)[occurs]
    # Equation 8 of Gorodkin, in counts.
    covariance = right.sum() * count - found @ true
    spread = (count**2 - found @ found) * (count**2 - true @ true)
    return {
        "accuracy": float(right.sum() / count) if count else 0.0,
        "macro_f1": float(f1.mean()) if count else 0.0,
        "matthews": float(covariance / np.sqrt(spread)) if spread else 0.0,
    }


def top_accuracy(
    scores: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"], count: int
) -> float:
    """The fraction of examples whose class is among the `count` with the highest scores.

    Of equal scores the lower class comes first, as in `argmax`; NaN is never right.
    """
    if not len(labels):
        return 0.0
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    lower = np.arange(scores.shape[1]) < labels[:, None]
    ahead = ~(scores <= own) | ((scores == own) & lower)
    return float(np.mean(ahead.sum(axis=1) < count))


def calibration_error(
    probabilities: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"], num_bins: int = 15
) -> float:
    """The mean distance of confidence and accuracy (Guo et al. 2017, equation 3).

    Args:
        probabilities: the probabilities of the classes.
        labels: the true class of each example; without examples the error is 0.
        num_bins: the number of equal parts of [0, 1]; within each, mean confidence is compared with
            accuracy.
    """
    if not len(labels):
        return 0.0
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    gaps = np.bincount(bins, right - confidence.astype(np.float64), num_bins)
    return float(np.abs(gaps).sum() / len(labels))


def class_accuracies(matrix: Int[np.ndarray, "c c"]) -> Float[np.ndarray, " c"]:
    """The accuracy within each class; NaN for a class without examples.

    Args:
        matrix: see `confusion_matrix`.
    """
    counts = matrix.sum(axis=1)
    return np.where(counts > 0, np.diagonal(matrix) / np.maximum(counts, 1), np.nan)


def regression_scores(
    predicted: Float[np.ndarray, " n"], targets: Float[np.ndarray, " n"]
) -> dict[str, float]:
    """Scores of predicted numbers; 0 where one is undefined, as for constant numbers.

    Args:
        predicted: the predicted number of each example.
        targets: the true number of each example.

    Returns:
        The correlations of `pearson` and of `spearman` (equal numbers share the mean of their
        ranks), and `mean_squared_error`.
    """
    predicted, targets = predicted.astype(np.float64), targets.astype(np.float64)
    error = np.mean(np.square(predicted - targets)) if len(predicted) else 0.0
    return {
        "pearson": correlation(predicted, targets),
        "spearman": rank_correlation(predicted, targets),
        "mean_squared_error": float(error),
    }


def confusion_matrix(
    predicted: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"], num_classes: int
) -> Int[np.ndarray, "num_classes num_classes"]:
    """Counts of each true class (rows) and each predicted class (columns).

    Raises:
        ValueError: if there is a class that is not in [0, num_classes).
    """
    for name, classes in (("predicted", predicted), ("labels", labels)):
        if classes.size and not 0 <= classes.min() <= classes.max() < num_classes:
            raise ValueError(
                f"{name} has classes from {classes.min()} to {classes.max()}: there are "
                f"{num_classes}, numbered from 0."
            )
    cells = labels.astype(np.int64) * num_classes + predicted
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def most_confused(
    matrix: Int[np.ndarray, "c c"], names: Sequence[str], count: int = 5
) -> list[tuple[str, str, int]]:
    """The most frequent mistakes.

    Args:
        matrix: see `confusion_matrix`.
        names: names of the classes.
        count: the most mistakes to return.

    Returns:
        True class, predicted class and count, the most frequent first; ties in the order of
        classes.
    """
    wrong = matrix - np.diag(np.diagonal(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    places = (divmod(int(cell), len(names)) for cell in order)
    return [
        (names[truth], names[guess], int(wrong[truth, guess]))
        for truth, guess in places
        if wrong[truth, guess]
    ]
