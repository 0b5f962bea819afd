import collections
import math

import numpy as np
import pytest

import transformer.scoring.neighbors
from transformer.scoring.neighbors import nearest_neighbor_classes

# Three directions of the plane, each of a class.
KNOWN = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]], np.float32)
LABELS = np.array([2, 0, 1])


def plainly(known, labels, vectors, count):
    """Vote by vote."""
    classes = []
    for vector in vectors:
        ranked = []
        for other, label in zip(known, labels, strict=True):
            cosine = other @ vector / (np.linalg.norm(other) * np.linalg.norm(vector))
            ranked.append((cosine, label))
        votes = collections.Counter()
        for cosine, label in sorted(ranked, reverse=True)[:count]:
            votes[label] += math.exp(cosine / 0.07)
        classes.append(max(votes, key=votes.get))
    return classes


@pytest.mark.parametrize("count", [1, 2, 5, 20, 50])
def test_votes_one_by_one(count):
    rng = np.random.default_rng(0)
    known, vectors = rng.normal(size=(50, 3)), rng.normal(size=(30, 3))
    labels = rng.integers(0, 4, 50)
    found = nearest_neighbor_classes(known, labels, vectors, count, 4)
    assert found.tolist() == plainly(known, labels, vectors, count)


def test_only_the_direction_counts():
    vectors = np.array([[100.0, 1.0], [1e-6, 1e-3], [-2.0, -3.0]])
    for length in (1e-3, 1.0, 1e3):
        found = nearest_neighbor_classes(KNOWN * length, LABELS, vectors, 1, 3)
        assert found.tolist() == [2, 0, 1]


def test_the_nearest_counts_most_but_many_outvote_it():
    angles = np.radians([0.0, 20.0, 20.0])
    known = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    labels, vector = np.array([0, 1, 1]), np.array([[1.0, 0.0]])
    # exp((1 - cos 20) / 0.07) = 2.4 votes against 2.
    assert nearest_neighbor_classes(known, labels, vector, 3, 2).tolist() == [0]
    # One more at 20 degrees.
    known, labels = np.append(known, known[-1:], axis=0), np.append(labels, 1)
    assert nearest_neighbor_classes(known, labels, vector, 4, 2).tolist() == [1]
    assert nearest_neighbor_classes(known, labels, vector, 1, 2).tolist() == [0]


def test_equal_votes_go_to_the_lower_class():
    known = np.array([[1.0, 0.0]] * 4)
    found = nearest_neighbor_classes(known, np.array([3, 1, 3, 1]), known[:1], 4, 5)
    assert found.tolist() == [1]
    # Of equally near ones some are taken, the same in every run.
    once, again = (
        nearest_neighbor_classes(known, np.array([3, 1, 3, 1]), known, 2, 5) for _ in range(2)
    )
    np.testing.assert_array_equal(once, again)
    assert set(once) <= {1, 3}


def test_fewer_known_than_neighbours_all_vote():
    vectors = np.random.default_rng(0).normal(size=(20, 2))
    found = nearest_neighbor_classes(KNOWN, LABELS, vectors, 100, 3)
    assert found.tolist() == plainly(KNOWN, LABELS, vectors, 3)


def test_nothing_to_tell():
    found = nearest_neighbor_classes(KNOWN, LABELS, np.zeros((0, 2)), 2, 3)
    assert found.shape == (0,)
    assert found.dtype == np.int64


def test_a_vector_of_zeros_is_as_far_from_all():
    found = nearest_neighbor_classes(KNOWN, np.array([0, 1, 1]), np.zeros((1, 2)), 3, 2)
    assert found.tolist() == [1]


def test_many_at_a_time_are_as_one_by_one(monkeypatch):
    vectors = np.random.default_rng(1).normal(size=(11, 2))
    expected = nearest_neighbor_classes(KNOWN, LABELS, vectors, 2, 3)
    monkeypatch.setattr(transformer.scoring.neighbors, "_AT_ONCE", 4)
    found = nearest_neighbor_classes(KNOWN, LABELS, vectors, 2, 3)
    np.testing.assert_array_equal(found, expected)
