"""Compiles the training step from shapes alone, and shows how arrays are sharded."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.stages import Compiled
from jaxtyping import PyTree

from transformer import sharding
from transformer.training.experiment import Experiment
from transformer.training.programs import make_programs
from transformer.training.recipes import numbers_of
from transformer.types import Json, Shapes


def batch_shapes(experiment: Experiment) -> Shapes:
    """Shapes and shardings of the batches of one dispatch, `[steps, B, ...]`."""
    limit = experiment.train.steps_per_dispatch
    place = sharding.batch_sharding(experiment.mesh, leading_axes=1)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((limit, *x.shape), x.dtype, sharding=place),
        experiment.example_batch(),
    )


def compile_steps(experiment: Experiment) -> Compiled:
    """Compiles the program of one dispatch."""
    count = jax.ShapeDtypeStruct((), jnp.int32)
    with jax.set_mesh(experiment.mesh):
        lowered = make_programs(experiment).steps.lower(
            experiment.shapes, batch_shapes(experiment), count, numbers_of(experiment)
        )
        return lowered.compile()


def bytes_per_device(tree: PyTree) -> int:
    """Bytes of all arrays on the device with the most, from shapes with shardings."""
    return sum(_part_bytes(leaf) for leaf in jax.tree.leaves(tree))


def parameter_table(experiment: Experiment) -> list[Json]:
    """Each parameter: `path`, `shape`, `dtype`, `count`, `cut` and `bytes_per_device`.

    `cut` lists, for each axis of the parameter, the mesh axes that shard it; mesh axes of size one
    are left out.
    """
    parameters = nn.meta.unbox(experiment.shapes.params)
    return [
        {
            "path": jax.tree_util.keystr(path, simple=True, separator="/"),
            "shape": list(leaf.shape),
            "dtype": str(leaf.dtype),
            "count": math.prod(leaf.shape),
            "cut": _cuts(leaf),
            "bytes_per_device": _part_bytes(leaf),
        }
        for path, leaf in jax.tree_util.tree_leaves_with_path(parameters)
    ]


def shown_shape(row: Json) -> str:
    """A readable shape of a row of `parameter_table`: `80 x 8192/fsdp x 64/tensor x 128`."""
    sides = zip(row["shape"], row["cut"], strict=True)
    return " x ".join("/".join([str(size), *cut]) for size, cut in sides)


def _cuts(leaf: jax.ShapeDtypeStruct) -> list[list[str]]:
    spec = [*leaf.sharding.spec, *[None] * (leaf.ndim - len(leaf.sharding.spec))]
    named = [(cut,) if isinstance(cut, str) else cut or () for cut in spec]
    mesh = leaf.sharding.mesh
    return [[axis for axis in cut if mesh.shape[axis] > 1] for cut in named]


def _part_bytes(leaf: jax.ShapeDtypeStruct) -> int:
    return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
