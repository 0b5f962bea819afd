"""How the devices advance the runs of a loop: one run alone, or several in one program."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
from jax.sharding import Mesh, NamedSharding

from transformer import sharding
from transformer.data.order import Batches
from transformer.errors import ConfigError
from transformer.tasks.parts.protocol import Losses
from transformer.training.finishing import SAMPLED
from transformer.training.opened import Opened
from transformer.training.recipes import placed_numbers
from transformer.training.reporting import StepFlops
from transformer.training.state import TrainState
from transformer.training.validation import means, placed, validation_totals
from transformer.types import Batch, HostBatch, Metrics, Params, Scalars

Tree = TypeVar("Tree")


@dataclasses.dataclass(frozen=True)
class Execution:
    """What the loop calls on the devices. Several runs have a leading axis in all trees.

    Attributes:
        steps: of state, batches and their count, to the new state and metrics; donates the state.
            See `step.train_steps`.
        evaluation_step: of parameters and a batch: sums, nothing dropped.
        validation_batches: over all hosts.
        validation_sharding: of a validation batch.
        put: brings the batches of all runs to the devices.
        gather: makes the states of all runs one tree.
        part: of a tree, what belongs to the run with this number.
        flops: of a step of one run on such batches; None where the devices' peak is not known, or
            several runs share them.
        mesh: that is set while all this is called; None sets none.
    """

    steps: Callable[[TrainState, Batch, int], tuple[TrainState, Metrics]]
    evaluation_step: Callable[[Params, Batch], Losses]
    validation_batches: Batches
    validation_sharding: NamedSharding
    put: Callable[[Sequence[HostBatch]], Batch]
    gather: Callable[[Sequence[TrainState]], TrainState]
    part: Callable[[Tree, int], Tree]
    flops: Callable[[Batch], int | None]
    mesh: Mesh | None = None

    def entered(self) -> contextlib.AbstractContextManager[object]:
        """Has the mesh set while entered."""
        return contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh)

    def take(self, runs: Sequence[Opened], count: int) -> tuple[Batch, int]:
        """The next batches of all runs, `count` at most, and their number.

        Raises:
            ConfigError: if they differ in shape.
        """
        taken = [run.feeder.take(count) for run in runs]
        batches, counts = zip(*taken, strict=True)
        shapes = {tuple(x.shape for x in jax.tree.leaves(batch)) for batch in batches}
        if len(set(counts)) > 1 or len(shapes) > 1:
            raise ConfigError(
                "the batches of these trials differ in shape, so that they cannot be trained at "
                "once: use --vectorize=none."
            )
        return self.put(batches), counts[0]

    def validate(self, params: Params, limit: int | None, runs: int) -> list[Scalars]:
        """Validation metrics of each run.

        Args:
            params: of all runs.
            limit: how many batches to take, spread evenly; None takes all.
            runs: how many there are.
        """
        totals = validation_totals(
            self.evaluation_step, self.validation_batches, self.validation_sharding, params, limit
        )
        totals = jax.device_get(totals)
        return [means([self.part(total, index) for total in totals]) for index in range(runs)]

    def last_validation(self, params: Params, limit: int | None, runs: int) -> list[Scalars]:
        """Metrics of all batches, and the loss of those that earlier evaluations took.

        Args:
            params: of all runs.
            limit: how many batches the earlier evaluations took; None if they took all.
            runs: how many there are.
        """
        measured = self.validate(params, None, runs)
        if limit is not None:
            sampled = self.validate(params, limit, runs)
            for metrics, few in zip(measured, sampled, strict=True):
                metrics[SAMPLED] = few["loss"]
        return measured


def alone(run: Opened) -> Execution:
    """A run that has its devices for itself; no tree has a leading axis."""
    experiment, numbers = run.experiment, placed_numbers(run.experiment)
    stacks = sharding.batch_sharding(experiment.mesh, leading_axes=1)
    return Execution(
        steps=functools.partial(run.programs.steps, numbers=numbers),
        evaluation_step=functools.partial(run.programs.evaluation_step, numbers),
        validation_batches=experiment.task.validation_batches(experiment.data),
        validation_sharding=sharding.batch_sharding(experiment.mesh),
        put=lambda batches: placed(batches[0], stacks),
        gather=lambda states: states[0],
        part=lambda tree, index: tree,
        flops=StepFlops(experiment),
        mesh=experiment.mesh,
    )
