"""How devices execute a training loop: one run alone, or several runs in one program."""

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
    """The functions the loop calls on the devices. With several runs all trees have a leading axis.

    Attributes:
        steps: maps state, batches and their count to the new state and metrics; donates the state.
            See `step.train_steps`.
        evaluation_step: maps parameters and a batch to sums of losses, without dropout.
        validation_batches: the validation batches of all hosts.
        validation_sharding: the sharding of a validation batch.
        put: moves the batches of all runs to the devices.
        gather: joins the states of all runs to one tree.
        part: takes the part of a tree that belongs to the run with this number.
        flops: FLOPs of a step of one run on such batches; None if the devices' peak is unknown or
            several runs share the devices.
        mesh: the mesh that is set while these functions are called; None sets none.
        close: ends what works beside these functions; they can still be called.
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
    close: Callable[[], None] = lambda: None

    def entered(self) -> contextlib.AbstractContextManager[object]:
        """Sets the mesh inside `with`."""
        return contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh)

    def take(self, runs: Sequence[Opened], count: int) -> tuple[Batch, int]:
        """The next batches of all runs, at most `count`, and their number.

        Raises:
            ConfigError: if the batches of the runs differ in shape.
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
            params: the parameters of all runs.
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
            params: the parameters of all runs.
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
        validation_batches=experiment.data.validation_batches(),
        validation_sharding=sharding.batch_sharding(experiment.mesh),
        put=lambda batches: placed(batches[0], stacks),
        gather=lambda states: states[0],
        part=lambda tree, index: tree,
        flops=StepFlops(experiment),
        mesh=experiment.mesh,
    )
