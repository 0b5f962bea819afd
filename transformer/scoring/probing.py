"""Linear probes: what can be read out of activations by one linear map."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

# Added to the diagonal, as a part of its mean, so that the solution exists and stays small.
_RIDGE = 1e-4


@dataclasses.dataclass(frozen=True, eq=False)
class LinearProbe:
    """For each of q questions a linear map to scores of c classes.

    Attributes:
        kernel: `[D, q, c]`.
        bias: `[q, c]`.
        mean: `[D]`, taken off the activations.
    """

    kernel: Float[np.ndarray, "D q c"]
    bias: Float[np.ndarray, "q c"]
    mean: Float[np.ndarray, "D"]

    def classes(self, activations: Float[np.ndarray, "n D"]) -> Int[np.ndarray, "n q"]:
        """The class with the highest score."""
        flat = (activations - self.mean) @ self.kernel.reshape(len(self.mean), -1)
        return (flat.reshape(len(flat), *self.bias.shape) + self.bias).argmax(-1)


def fit_linear_probe(
    activations: Float[np.ndarray, "n D"], labels: Int[np.ndarray, "n q"], num_classes: int
) -> LinearProbe:
    """Fits a probe by least squares to 1 for the right class and 0 for the others.

    This has one exact solution, without a learning rate or a number of steps.

    Args:
        activations: what is read.
        labels: the classes of each of q questions.
        num_classes: c.
    """
    mean = activations.mean(0, dtype=np.float64)
    centred = activations.astype(np.float64) - mean
    squares = centred.T @ centred
    width = len(mean)
    squares[np.diag_indices(width)] += _RIDGE * np.trace(squares) / width
    shares, products = [], []
    for label in range(num_classes):
        wanted = (labels == label).astype(np.float64)
        shares.append(wanted.mean(0))
        products.append(centred.T @ wanted)
    kernel = np.linalg.solve(squares, np.stack(products, -1).reshape(width, -1))
    return LinearProbe(
        kernel.reshape(width, labels.shape[1], num_classes), np.stack(shares, -1), mean
    )
