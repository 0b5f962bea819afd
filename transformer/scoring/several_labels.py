"""Scores of predicted sets of labels."""

import numpy as np
from jaxtyping import Bool


def label_set_scores(
    predicted: Bool[np.ndarray, "n c"], truth: Bool[np.ndarray, "n c"]
) -> dict[str, float]:
    """Scores of several labels at once, as fractions; 0 where one is undefined.

    Args:
        predicted: the predicted labels of each example.
        truth: the true labels.

    Returns:
        `accuracy`, the share of examples whose sets of labels are exactly right; `micro_f1`, F1 of
        all labels of all examples together; and `macro_f1`, the mean F1 of the labels that occur,
        as true or as predicted.
    """
    right = (predicted & truth).sum(axis=0)
    both = predicted.sum(axis=0) + truth.sum(axis=0)
    occurs = both > 0
    exact = (predicted == truth).all(axis=1)
    return {
        "accuracy": float(exact.mean()) if len(exact) else 0.0,
        "micro_f1": float(2.0 * right.sum() / both.sum()) if both.sum() else 0.0,
        "macro_f1": float((2.0 * right[occurs] / both[occurs]).mean()) if occurs.any() else 0.0,
    }
