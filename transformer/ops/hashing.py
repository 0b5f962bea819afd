"""Hashes of places in an array, for fingerprints and for cheap random bits."""

from types import ModuleType

import jax
import numpy as np
from jaxtyping import UInt32

# The odd integer nearest to 2**32 over the golden ratio.
_ODD = np.uint32(0x9E3779B1)

Words = jax.Array | np.ndarray


def mixed(x: UInt32[Words, "..."]) -> UInt32[Words, "..."]:
    """The final mix of MurmurHash3: each bit of the argument flips about half of the result."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def places(shape: tuple[int, ...], library: ModuleType) -> UInt32[Words, "..."]:
    """A number for each place of an array, from its indices along all axes.

    Args:
        shape: of the array; at least one axis, as NumPy warns where scalars overflow.
        library: `jax.numpy` or `numpy`, which makes the numbers.
    """
    found = library.zeros(shape, np.uint32)
    for axis, size in enumerate(shape):
        index = library.arange(size, dtype=np.uint32)
        following = tuple(range(1, len(shape) - axis))
        found = found * _ODD + library.expand_dims(index, following)
    return found
