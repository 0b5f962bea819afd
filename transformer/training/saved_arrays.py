"""Arrays in the form of checkpoints: random keys as integers, leaves by path, fingerprints."""

import functools
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import PyTree

from transformer.ops.hashing import mixed, places
from transformer.types import ByPath

# The most elements of an array whose fingerprint NumPy computes, in milliseconds.
_SMALL = 1 << 18


def fingerprints(tree: PyTree) -> dict[str, int]:
    """A 32-bit fingerprint of each array, which changes if any single bit changes.

    It is a sum over the elements in exact integer arithmetic, so it does not depend on how the
    array is sharded. Adapter files use it, as do checkpoints older than `described_arrays`.
    """
    # One at a time: programs over several devices that wait for each other must keep their order.
    return {path: int(_fingerprint(array)) for path, array in leaves_by_path(raw(tree)).items()}


# Compiled per array: models have many arrays of equal shape, which share one compiled program.
@jax.jit
def _fingerprint(x: jax.Array) -> jax.Array:
    bits = _bits(x)
    # Multiply each element by a different odd number, so that exchanged elements are noticed.
    return jnp.sum(bits * (2 * places(x.shape, jnp) + 1), dtype=jnp.uint32)


def described_arrays(tree: PyTree) -> dict[str, list]:
    """A 32-bit fingerprint of each array by path, with its dtype and its shape.

    It also detects that all numbers change in the same way, which `fingerprints` may miss: 512 ones
    that become 512 halves have the same `fingerprints`.
    """
    return {
        path: [_fingerprint_of(array), str(array.dtype), list(array.shape)]
        for path, array in leaves_by_path(raw(tree)).items()
    }


def _fingerprint_of(array: jax.Array | np.ndarray) -> int:
    """`hashed` of an array; the same number wherever it is computed.

    A program for the device is compiled for each shape, which takes longer than NumPy needs for a
    small array.
    """
    on_host = isinstance(array, np.ndarray) or array.is_fully_addressable
    if array.size <= _SMALL and on_host:
        return int(hashed(np.asarray(array), np))
    return int(_hashed_on_device(array))


def hashed(x: jax.Array | np.ndarray, library: ModuleType) -> jax.Array | np.uint32:
    """The hash of an array's bits and their places, with JAX's functions or those of NumPy.

    Args:
        x: the array.
        library: `jax.numpy` or `numpy`.
    """
    # NumPy warns when a scalar overflows, as it does here on purpose; arrays do so in silence.
    x = x.reshape(x.shape or (1,))
    width = library.bool_ if x.dtype == library.bool_ else f"uint{8 * x.dtype.itemsize}"
    bits = x.view(width).astype(np.uint32)
    return library.sum(
        mixed(bits ^ mixed(places(x.shape, library) + np.uint32(1))), dtype=np.uint32
    )


_hashed_on_device = jax.jit(functools.partial(hashed, library=jnp))


def _bits(x: jax.Array) -> jax.Array:
    if x.dtype == jnp.bool_:
        x = x.astype(jnp.uint8)
    bits = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * x.dtype.itemsize}"))
    return bits.astype(jnp.uint32)


def raw(tree: PyTree) -> PyTree:
    """Replaces typed random keys by the integers they consist of."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree)


def raw_shapes(tree: PyTree) -> PyTree:
    """Shapes, dtypes and shardings of `raw`."""
    return jax.tree.map(lambda x: _raw_shape(x) if _is_key(x) else x, tree)


def _raw_shape(key: jax.Array | jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    data = jax.eval_shape(jax.random.key_data, key)
    return jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=key.sharding)


def with_keys_like(found: PyTree, wanted: PyTree) -> PyTree:
    """Turns integers back into typed random keys where `wanted` has keys."""
    return jax.tree.map(
        lambda x, like: jax.random.wrap_key_data(x) if _is_key(like) else x, found, wanted
    )


def _is_key(x: ArrayLike | jax.ShapeDtypeStruct) -> bool:
    return not isinstance(x, int | float) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def leaves_by_path(tree: PyTree) -> ByPath:
    """Leaves by path, in the same notation for attributes, keys and indices."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {f"/{jax.tree_util.keystr(path, simple=True, separator='/')}": x for path, x in leaves}


def size_in_bytes(tree: PyTree) -> int:
    """Bytes of all arrays, over all devices."""
    return sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(raw_shapes(tree)))
