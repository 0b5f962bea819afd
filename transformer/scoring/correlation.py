"""Correlations of numbers."""

import numpy as np
from jaxtyping import Float


def correlation(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]) -> float:
    """Pearson's correlation; 0 if either is constant."""
    if not first.size or np.ptp(first) == 0.0 or np.ptp(second) == 0.0:
        return 0.0
    first, second = first - first.mean(), second - second.mean()
    return float(first @ second / np.sqrt((first @ first) * (second @ second)))


def rank_correlation(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]) -> float:
    """Spearman's correlation; 0 if either is constant."""
    return correlation(_ranks(first), _ranks(second))


def _ranks(numbers: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """The rank of each number, from 1; equal numbers share the mean of their ranks."""
    _, inverse, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2.0)[inverse]
