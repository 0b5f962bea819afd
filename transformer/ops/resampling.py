"""Interpolation of values on a grid."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# The parameter of the cubic kernel, as in most image libraries; Keys himself prefers -0.5.
_SHARPNESS = -0.75


def cubic_weights(old: int, new: int) -> Float[np.ndarray, "new old"]:
    """The weight of each of `old` points on a line for each of `new` points.

    Points are the centres of equal parts of the line. Beyond the ends, the last value is repeated.
    This is cubic convolution (Keys 1981, equation 4), without smoothing when `new` is below `old`.
    """
    points = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(points).astype(int)
    weights = np.zeros((new, old))
    for offset in range(-1, 3):
        distance = np.abs(points - first - offset)
        near = ((_SHARPNESS + 2) * distance - (_SHARPNESS + 3)) * distance**2 + 1
        far = _SHARPNESS * (((distance - 5) * distance + 8) * distance - 4)
        taken = np.where(distance <= 1, near, far)
        np.add.at(weights, (np.arange(new), np.clip(first + offset, 0, old - 1)), taken)
    return weights


def resize_grid(
    grid: Float[Array, "Y X D"], height: int, width: int
) -> Float[Array, "height width D"]:
    """Resizes a grid of vectors by bicubic interpolation.

    Args:
        grid: Y by X vectors.
        height: new Y.
        width: new X.
    """
    if grid.shape[:2] == (height, width):
        return grid
    vertical = jnp.asarray(cubic_weights(grid.shape[0], height), grid.dtype)
    horizontal = jnp.asarray(cubic_weights(grid.shape[1], width), grid.dtype)
    return jnp.einsum("vy,yxd,hx->vhd", vertical, grid, horizontal)
