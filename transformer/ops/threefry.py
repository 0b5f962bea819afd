"""The random numbers of `jax.random`, whose bits a CPU computes in one pass over an array.

For CPUs JAX writes the twenty rounds of Threefry (Salmon et al. 2011, "Parallel random numbers: as
easy as 1, 2, 3") as a loop of five turns. Each turn reads and writes whole arrays, and each shape
has several kernels to compile. Here the rounds follow each other without a loop, in one kernel.
Keys are split and folded as JAX does it.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import define_prng_impl, threefry_prng_impl
from jaxtyping import Array, Key, UInt, UInt32

from transformer.ops.platforms import platform

# By how many bits words are rotated; the two rows take turns.
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)
_UNSIGNED = {8: np.uint8, 16: np.uint16, 32: np.uint32}

Hashes = tuple[UInt32[Array, "..."], UInt32[Array, "..."]]


def without_loop(key: Key[Array, "..."]) -> Key[Array, "..."]:
    """The same key, with which a CPU draws the same bits faster.

    What is computed from the bits may differ in its last place, as always between two programs.

    Args:
        key: of JAX's default kind. One of another kind is returned as it is, and so is every key
            on other devices, for which JAX writes no loop.
    """
    usual = str(jax.random.key_impl(key)) == "threefry2x32"
    if not (usual and jax.config.jax_threefry_partitionable and platform() == "cpu"):
        return key
    return jax.random.wrap_key_data(jax.random.key_data(key), impl=_WITHOUT_LOOP)


def _hashed(key: UInt32[Array, "2"], high: Array, low: Array) -> Hashes:
    """Threefry of two words, for arrays of both."""
    parts = (key[0], key[1], key[0] ^ key[1] ^ _PARITY)
    high, low = high + parts[0], low + parts[1]
    for turn in range(5):
        for bits in _ROTATIONS[turn % 2]:
            high = high + low
            low = high ^ ((low << np.uint32(bits)) | (low >> np.uint32(32 - bits)))
        high = high + parts[(turn + 1) % 3]
        low = low + parts[(turn + 2) % 3] + np.uint32(turn + 1)
    return high, low


def _row_numbers(shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    """The number of each place of an array, row by row.

    A sum over the axes and no reshaped row: where the array is sharded, each device makes its part.
    """
    found = jnp.zeros(shape, np.uint32)
    for axis, size in enumerate(shape):
        if size <= 1:
            continue
        stride = np.uint32(math.prod(shape[axis + 1 :]))
        found = found + jax.lax.broadcasted_iota(np.uint32, shape, axis) * stride
    return found


@functools.partial(jax.jit, static_argnums=(1, 2))
def _random_bits(key: UInt32[Array, "2"], width: int, shape: tuple[int, ...]) -> UInt[Array, "..."]:
    # Arrays of more than 2**32 numbers and numbers of 64 bits are rare, and left to JAX.
    if width not in _UNSIGNED or math.prod(shape) > 2**32:
        return threefry_prng_impl.random_bits(key, width, shape)
    # The barrier hides which key it is, so XLA compiles one kernel for all arrays of one shape.
    key = jax.lax.optimization_barrier(key)
    high, low = _hashed(key, jnp.zeros(shape, np.uint32), _row_numbers(shape))
    return (high ^ low).astype(_UNSIGNED[width])


_WITHOUT_LOOP = define_prng_impl(
    key_shape=(2,),
    seed=threefry_prng_impl.seed,
    split=threefry_prng_impl.split,
    random_bits=_random_bits,
    fold_in=threefry_prng_impl.fold_in,
    name="threefry2x32 without a loop",
    tag="unrolled",
)
