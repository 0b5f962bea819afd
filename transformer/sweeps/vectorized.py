"""Runs many runs in one program, sharded over devices.

`scan` processes the runs one after another inside the program (`lax.map`); `vmap` computes them
together.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from transformer.nn.compute import for_many_at_once
from transformer.tasks.parts.protocol import Losses
from transformer.training.execution import Execution
from transformer.training.experiment import Experiment
from transformer.training.opened import Opened
from transformer.training.programs import Programs, plain_programs, program_key
from transformer.training.recipes import Numbers, numbers_of
from transformer.training.shared import Shared
from transformer.training.state import TrainState
from transformer.training.step import Count
from transformer.types import Batch, Metrics, Params

AXIS = "population"
Tree = TypeVar("Tree")


def together(runs: Sequence[Opened], vectorize: str, shared: Shared) -> Execution:
    """The execution of runs of one program: every tree has a leading axis of runs.

    Args:
        runs: runs with the same `programs.program_key`.
        vectorize: `scan`, or `vmap`, which shards the runs over all devices.
        shared: keeps the programs.
    """
    first = runs[0].experiment
    mesh = trial_mesh(len(runs) if vectorize == "vmap" else 1)
    cut, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((AXIS,), ()))
    key = (vectorize, len(runs), program_key(first.config))
    programs = shared.get_or_make(key, lambda: vectorized_programs(first, vectorize))
    numbers = jax.device_put(stacked([numbers_of(run.experiment) for run in runs]), cut)
    return Execution(
        steps=lambda state, batches, count: programs.steps(state, batches, count, numbers),
        evaluation_step=functools.partial(programs.evaluation_step, numbers),
        validation_batches=first.data.validation_batches(),
        validation_sharding=whole,
        put=lambda batches: jax.device_put(stacked(batches), cut),
        gather=lambda states: jax.device_put(jax.tree.map(lambda *x: jnp.stack(x), *states), cut),
        part=lambda tree, index: jax.tree.map(lambda x: x[index], tree),
        flops=lambda batches: None,
    )


def vectorized_programs(experiment: Experiment, vectorize: str) -> Programs:
    """The programs of several runs, compiled when first called; `steps` donates its state.

    Args:
        experiment: the experiment of any of the runs.
        vectorize: `scan` or `vmap`.
    """
    if vectorize == "vmap":
        plain = plain_programs(
            dataclasses.replace(experiment, model=for_many_at_once(experiment.model))
        )
        steps = jax.vmap(plain.steps, in_axes=(0, 0, None, 0))
        evaluation_step = jax.vmap(plain.evaluation_step, in_axes=(0, 0, None))
    else:
        plain = plain_programs(experiment)
        steps = functools.partial(scanned_steps, plain)
        evaluation_step = functools.partial(scanned_evaluation_step, plain)
    return Programs(
        new_state=plain.new_state,
        steps=jax.jit(steps, donate_argnums=0),
        evaluation_step=jax.jit(evaluation_step),
    )


def scanned_steps(
    plain: Programs,
    state: TrainState,
    batches: Batch,
    count: Count,
    numbers: Numbers,
) -> tuple[TrainState, Metrics]:
    """Applies `plain.steps` to one run after another."""
    return jax.lax.map(
        lambda run: plain.steps(run[0], run[1], count, run[2]), (state, batches, numbers)
    )


def scanned_evaluation_step(
    plain: Programs, numbers: Numbers, params: Params, batch: Batch
) -> Losses:
    """Applies `plain.evaluation_step` to one run after another."""
    return jax.lax.map(lambda run: plain.evaluation_step(*run, batch), (numbers, params))


def stacked(trees: Sequence[Tree]) -> Tree:
    """Stacks trees of host arrays along a new leading axis."""
    return jax.tree.map(lambda *x: np.stack(x), *trees)


def trial_mesh(trials: int) -> jax.sharding.Mesh:
    """A mesh of the largest number of devices over which the trials divide evenly."""
    devices = jax.local_devices()
    count = max(n for n in range(1, len(devices) + 1) if trials % n == 0)
    return jax.make_mesh((count,), (AXIS,), axis_types=(AxisType.Auto,), devices=devices[:count])
