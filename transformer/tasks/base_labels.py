"""Classes with names: kept in the run's folder, and told with probabilities."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from transformer.data.text import read_text
from transformer.errors import DataError, WorkdirError
from transformer.tasks.base import Prediction

LABELS_FILE = "labels.json"


def save_labels(labels: Sequence[str], workdir: Path) -> None:
    """Writes the names of a run's outputs."""
    (workdir / LABELS_FILE).write_text(json.dumps(labels, ensure_ascii=False), "utf-8")


def load_labels(workdir: Path) -> tuple[str, ...]:
    """The names of a run's outputs.

    Raises:
        WorkdirError: if the run has none.
    """
    try:
        return tuple(json.loads(read_text(workdir / LABELS_FILE)))
    except (DataError, OSError, ValueError, TypeError):
        raise WorkdirError(
            f"{workdir / LABELS_FILE} is missing or damaged: it names the labels of the run."
        ) from None


def class_prediction(
    output: Float[np.ndarray, " c"], labels: Sequence[str], most: int = 5
) -> Prediction:
    """The most probable class, and in the details the probabilities of a few.

    Args:
        output: scores of the classes.
        labels: their names.
        most: how many probabilities.
    """
    exponents = np.exp(output - output.max())
    probabilities = exponents / exponents.sum()
    order = np.argsort(-probabilities, kind="stable")[:most]
    best = labels[order[0]], float(probabilities[order[0]])
    details = {
        "predicted": best[0],
        "probability": best[1],
        "probabilities": {labels[place]: float(probabilities[place]) for place in order},
    }
    return Prediction(f"{best[0]}\t{best[1]:.4f}", details)
