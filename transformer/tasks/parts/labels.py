"""Named classes: saved in the run's folder, and predicted with probabilities."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
from jaxtyping import Float

from transformer.data.labels.class_names import distinct_names
from transformer.data.reading.json_text import loads
from transformer.data.reading.text import read_text
from transformer.errors import DataError, WorkdirError
from transformer.files import write_text
from transformer.tasks.parts.abilities import Prediction

LABELS_FILE = "labels.json"


def save_labels(labels: Sequence[str], workdir: Path) -> None:
    """Writes the names of a run's outputs."""
    write_text(workdir / LABELS_FILE, json.dumps(labels, ensure_ascii=False))


def load_labels(workdir: Path) -> tuple[str, ...]:
    """The names of a run's outputs.

    Raises:
        WorkdirError: if the run has none.
    """
    try:
        return tuple(cast("list[str]", loads(read_text(workdir / LABELS_FILE))))
    except (DataError, OSError, ValueError, TypeError):
        raise WorkdirError(
            f"{workdir / LABELS_FILE} is missing or damaged: it names the labels of the run."
        ) from None


def class_prediction(
    output: Float[np.ndarray, " c"], labels: Sequence[str], limit: int = 5
) -> Prediction:
    """The most probable class; the details hold its number and the top probabilities.

    Args:
        output: the scores of the classes.
        labels: their names; `distinct_names` are shown.
        limit: how many probabilities the details hold.
    """
    names = distinct_names(labels)
    probabilities = softmax(output)
    order = np.argsort(-probabilities, kind="stable")[:limit]
    best = names[order[0]], float(probabilities[order[0]])
    details = {
        "predicted": best[0],
        "class": int(order[0]),
        "probability": best[1],
        "probabilities": {names[place]: float(probabilities[place]) for place in order},
    }
    return Prediction(f"{best[0]}\t{best[1]:.4f}", details)


def labels_prediction(output: Float[np.ndarray, " c"], labels: Sequence[str]) -> Prediction:
    """All labels with a probability above one half; the details hold all probabilities.

    Args:
        output: the independent scores of the labels.
        labels: their names; `distinct_names` are shown.
    """
    names, probabilities = distinct_names(labels), sigmoid(output)
    order = np.argsort(-probabilities, kind="stable")
    chosen = [place for place in order if output[place] >= 0.0]
    details = {
        "predicted": [names[place] for place in chosen],
        "classes": [int(place) for place in chosen],
        "probabilities": {names[place]: float(probabilities[place]) for place in order},
    }
    text = "\t".join(f"{names[place]}\t{probabilities[place]:.4f}" for place in chosen)
    return Prediction(text or "none", details)


def softmax(scores: Float[np.ndarray, "... c"]) -> Float[np.ndarray, "... c"]:
    """Probabilities of classes, from their scores."""
    exponents = np.exp(scores - scores.max(-1, keepdims=True))
    return exponents / exponents.sum(-1, keepdims=True)


def sigmoid(numbers: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """The logistic function, without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * numbers))
