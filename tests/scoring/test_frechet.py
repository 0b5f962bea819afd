"""The Fréchet distance, against matrices whose roots are known."""

import numpy as np
import pytest

from transformer.scoring.frechet import frechet_distance


def test_the_distance_of_a_set_to_itself_is_nothing():
    vectors = np.random.default_rng(0).normal(size=(40, 5))
    assert frechet_distance(vectors, vectors) == pytest.approx(0.0, abs=1e-9)


def test_means_and_covariances_count():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(60, 4)) @ rng.normal(size=(4, 4))
    second = rng.normal(size=(50, 4)) + 2.0
    one, other = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    # The eigenvalues of a product of two covariances are real and not negative.
    shared = np.sqrt(np.linalg.eigvals(one @ other).real).sum()
    means = np.square(first.mean(0) - second.mean(0)).sum()
    expected = means + np.trace(one) + np.trace(other) - 2.0 * shared
    assert frechet_distance(first, second) == pytest.approx(expected)
    assert frechet_distance(second, first) == pytest.approx(expected)


def test_a_shift_counts_as_its_square():
    vectors = np.random.default_rng(0).normal(size=(40, 3))
    assert frechet_distance(vectors, vectors + np.array([3.0, 0.0, 4.0])) == pytest.approx(25.0)
