"""Finite scalar quantisation: a vector becomes one of finitely many, with a number for each.

Mentzer et al. 2023, "Finite Scalar Quantization: VQ-VAE Made Simple". Every number of a vector is
squeezed between two ends and rounded to one of its levels; nothing has to be learned, and no
codebook can collapse. Letters: C numbers in a vector, `levels` how many values each of them has.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

# Numbers are squeezed to a little more than the outermost levels, so that these can be reached.
_MARGIN = 1e-3


def num_codes(levels: Sequence[int]) -> int:
    """How many different vectors there are."""
    return math.prod(levels)


def squeezed(x: Float[Array, "... C"], levels: Sequence[int]) -> Float[Array, "... C"]:
    """Numbers between the outermost levels, which are whole numbers (section 3.1, appendix A.1).

    An odd number of levels lies around 0; an even one has one more below 0 than above.
    """
    count = np.asarray(levels, np.float32)
    half = (count - 1.0) * (1.0 + _MARGIN) / 2.0
    offset = np.where(count % 2 == 0, 0.5, 0.0).astype(np.float32)
    # 0 stays 0, also between an even number of levels.
    return jnp.tanh(x + np.arctanh(offset / half)) * half - offset


def quantized(x: Float[Array, "... C"], levels: Sequence[int]) -> Float[Array, "... C"]:
    """The nearest vector of levels, each from -1 to 1; gradients pass through the rounding.

    Args:
        x: any numbers.
        levels: at least 2 for each of the C numbers.
    """
    bounded = squeezed(x, levels)
    rounded = bounded + jax.lax.stop_gradient(jnp.round(bounded) - bounded)
    return rounded / _half(levels)


def codes_of(vectors: Float[Array, "... C"], levels: Sequence[int]) -> Int[Array, "..."]:
    """The numbers of quantised vectors, from 0 to `num_codes(levels)` - 1."""
    half = _half(levels)
    digits = jnp.round(vectors * half + half).astype(jnp.int32)
    return jnp.sum(digits * _places(levels), axis=-1)


def vectors_of(codes: Int[Array, "..."], levels: Sequence[int]) -> Float[Array, "... C"]:
    """The vectors that codes stand for: the inverse of `codes_of`."""
    digits = codes[..., None] // _places(levels) % np.asarray(levels, np.int32)
    half = _half(levels)
    return (digits - half) / half


def _half(levels: Sequence[int]) -> Float[np.ndarray, " C"]:
    return np.asarray([count // 2 for count in levels], np.float32)


def _places(levels: Sequence[int]) -> Int[np.ndarray, " C"]:
    """The place value of each number's digit; that of the first is 1."""
    return np.cumprod([1, *levels[:-1]]).astype(np.int32)
