"""Nearest-neighbour classification: how good vectors are without training a head."""

import numpy as np
from jaxtyping import Float, Int

# The temperature of the softmax over similarities, as in Wu et al. 2018.
_TEMPERATURE = 0.07
# The number of examples that are compared with all known ones at once.
_AT_ONCE = 1024


def nearest_neighbor_classes(
    known: Float[np.ndarray, "n D"],
    labels: Int[np.ndarray, " n"],
    vectors: Float[np.ndarray, "m D"],
    count: int,
    num_classes: int,
) -> Int[np.ndarray, " m"]:
    """The class that the nearest known examples vote for, each by its cosine similarity.

    As Wu et al. 2018 ("Unsupervised Feature Learning via Non-Parametric Instance Discrimination",
    section 3.4): a neighbour counts as exp(similarity / 0.07).

    Args:
        known: vectors of examples whose class is known.
        labels: their classes.
        vectors: of the other examples.
        count: the number of neighbours that vote; all known examples if there are fewer.
        num_classes: classes are numbered from 0 to below this.

    Raises:
        ValueError: if there are no known examples.
    """
    if not len(known):
        raise ValueError("there are no examples whose class is known: nobody can vote.")
    known, vectors = _normalised(known), _normalised(vectors)
    count = min(count, len(known))
    classes = []
    for first in range(0, len(vectors), _AT_ONCE):
        similarity = vectors[first : first + _AT_ONCE] @ known.T
        nearest = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
        weights = np.exp(np.take_along_axis(similarity, nearest, axis=1) / _TEMPERATURE)
        votes = np.zeros((len(similarity), num_classes))
        np.add.at(votes, (np.arange(len(similarity))[:, None], labels[nearest]), weights)
        classes.append(votes.argmax(axis=1))
    return np.concatenate(classes) if classes else np.zeros(0, np.int64)


def _normalised(vectors: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "n D"]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
