"""Arrays as checkpoints hold them: random keys as integers, leaves by path, fingerprints."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import PyTree

from transformer.types import ByPath


def fingerprints(tree: PyTree) -> dict[str, int]:
    """A 32-bit fingerprint of each array, which changes with any single bit of it.

    It is a sum over the elements, exact in integers, and so does not depend on how the array is
    cut over devices. Files of adapters have it, and checkpoints of before `described_arrays`.
    """
    # One at a time: programs over several devices that wait for each other must not overtake.
    return {path: int(_fingerprint(array)) for path, array in leaves_by_path(raw(tree)).items()}


# Of one array: those of one shape, of which models have many, share one compiled program.
@jax.jit
def _fingerprint(x: jax.Array) -> jax.Array:
    bits = _bits(x)
    # Each element times an odd number of its own, so that exchanged elements are noticed.
    place = jnp.zeros(x.shape, jnp.uint32)
    for axis in range(x.ndim):
        index = jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
        place = place * jnp.uint32(0x9E3779B1) + index
    return jnp.sum(bits * (2 * place + 1), dtype=jnp.uint32)


def described_arrays(tree: PyTree) -> dict[str, list]:
    """A 32-bit fingerprint of each array by path, with its dtype and its shape.

    Every bit of an array counts, also where all of its numbers change alike: `fingerprints` does
    not notice that 512 ones become 512 halves.
    """
    return {
        path: [int(_hashed(array)), str(array.dtype), list(array.shape)]
        for path, array in leaves_by_path(raw(tree)).items()
    }


@jax.jit
def _hashed(x: jax.Array) -> jax.Array:
    place, odd = jnp.zeros(x.shape, jnp.uint32), jnp.uint32(0x9E3779B1)
    for axis in range(x.ndim):
        place = place * odd + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
    return jnp.sum(_mixed(_bits(x) ^ _mixed(place + 1)), dtype=jnp.uint32)


def _mixed(x: jax.Array) -> jax.Array:
    """The end of MurmurHash3: each bit of the argument changes about half of the result's."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def _bits(x: jax.Array) -> jax.Array:
    if x.dtype == jnp.bool_:
        x = x.astype(jnp.uint8)
    bits = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * x.dtype.itemsize}"))
    return bits.astype(jnp.uint32)


def raw(tree: PyTree) -> PyTree:
    """Typed random keys as the integers they are made of."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree)


def raw_shapes(tree: PyTree) -> PyTree:
    """Shapes, dtypes and shardings of `raw`."""
    return jax.tree.map(lambda x: _raw_shape(x) if _is_key(x) else x, tree)


def _raw_shape(key: jax.Array | jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    data = jax.eval_shape(jax.random.key_data, key)
    return jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=key.sharding)


def with_keys_like(found: PyTree, wanted: PyTree) -> PyTree:
    """Integers as typed random keys again, where they were."""
    return jax.tree.map(
        lambda x, like: jax.random.wrap_key_data(x) if _is_key(like) else x, found, wanted
    )


def _is_key(x: ArrayLike | jax.ShapeDtypeStruct) -> bool:
    return not isinstance(x, int | float) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def leaves_by_path(tree: PyTree) -> ByPath:
    """Leaves by a path that reads the same for attributes, keys and indices."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {f"/{jax.tree_util.keystr(path, simple=True, separator='/')}": x for path, x in leaves}


def size_in_bytes(tree: PyTree) -> int:
    """Bytes of all arrays, over all devices."""
    return sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(raw_shapes(tree)))
