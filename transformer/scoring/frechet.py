"""How far two sets of vectors are apart, each taken for a normal distribution."""

import numpy as np
from jaxtyping import Float


def frechet_distance(first: Float[np.ndarray, "n D"], second: Float[np.ndarray, "m D"]) -> float:
    """The squared Fréchet distance of the two normal distributions (Dowson and Landau 1982).

    |m1 - m2|^2 + trace(C1 + C2 - 2 (C1 C2)^(1/2)), with means m and covariances C. Of vectors of an
    image network it is the FID (Heusel et al. 2017, equation 6), of a network that hears the
    Fréchet audio distance (Kilgour et al. 2019, equation 1).

    Args:
        first: vectors, more than D.
        second: the same of the other set.
    """
    means = [vectors.mean(axis=0, dtype=np.float64) for vectors in (first, second)]
    one, other = (np.cov(np.asarray(v, np.float64), rowvar=False) for v in (first, second))
    # (C1 C2)^(1/2) has the trace of (R C2 R)^(1/2) with R = C1^(1/2), which is symmetric.
    root = _root(np.atleast_2d(one))
    middle = np.linalg.eigvalsh(root @ np.atleast_2d(other) @ root)
    shared = np.sqrt(np.maximum(middle, 0.0)).sum()
    distance = np.square(means[0] - means[1]).sum()
    return float(distance + np.trace(np.atleast_2d(one + other)) - 2.0 * shared)


def _root(matrix: Float[np.ndarray, "D D"]) -> Float[np.ndarray, "D D"]:
    """The square root of a covariance."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
