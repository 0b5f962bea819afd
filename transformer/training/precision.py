"""The dtypes in which matrices and their moments are kept between two steps.

A step computes its update in float32 and rounds the result stochastically to the dtype that is
kept. Vectors (norms, biases), which take little memory, are always float32.
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from transformer.limits import OneOf
from transformer.ops.rounding import stochastically_rounded
from transformer.types import Params

# The dtypes of what is kept.
KEPT_DTYPES = ("float32", "bfloat16")
KeptDType = Annotated[str, OneOf(KEPT_DTYPES)]
_MATRICES = ("kernel", "embedding")


@dataclasses.dataclass(frozen=True)
class Precision:
    """In which dtypes a train state keeps its matrices.

    Attributes:
        parameters: dtype of the parameters.
        moments: dtype of the optimizer's moments.
    """

    parameters: str = "float32"
    moments: str = "float32"


FULL = Precision()


def is_matrix(path: jax.tree_util.KeyPath) -> bool:
    """Whether a parameter, or what mirrors it, is a kernel or a table: no scale and no bias."""
    return jax.tree_util.keystr(path[-1:], simple=True) in _MATRICES


def narrowed(tree: PyTree, dtype: str) -> PyTree:
    """Rounds all matrices of a tree to the nearest numbers of a dtype; also for shapes."""

    def one(path: jax.tree_util.KeyPath, x: PyTree) -> PyTree:
        if not is_matrix(path) or x.dtype == dtype:
            return x
        if isinstance(x, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(x.shape, jnp.dtype(dtype), sharding=x.sharding)
        return x.astype(dtype)

    return jax.tree_util.tree_map_with_path(one, tree)


def widened(tree: PyTree) -> PyTree:
    """Converts what is bfloat16 to float32, which changes no number."""
    return jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x, tree)


def rounded_like(tree: PyTree, like: PyTree, key: Array) -> PyTree:
    """Rounds arrays stochastically where another tree has bfloat16.

    Args:
        tree: new values, in float32.
        like: the tree as it is kept.
        key: the random key of this step and of this purpose.
    """
    leaves, structure = jax.tree.flatten(tree)
    kept = [x.dtype for x in jax.tree.leaves(like)]
    if jnp.bfloat16 not in kept:
        return tree
    words = jax.random.bits(key, (len(leaves), 2), jnp.uint32)
    return structure.unflatten(
        stochastically_rounded(x, words[index]) if dtype == jnp.bfloat16 else x
        for index, (x, dtype) in enumerate(zip(leaves, kept, strict=True))
    )


def with_dtypes_of(params: Params, like: Params) -> Params:
    """The same parameters in the dtypes of others, rounded to the nearest."""
    return jax.tree.map(lambda x, kept: x.astype(kept.dtype), params, like)
