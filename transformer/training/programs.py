"""The compiled programs of a run, shared by runs that differ only in numbers."""

import dataclasses
import json
from collections.abc import Callable

import jax
from jaxtyping import Array
from ml_collections import ConfigDict

from transformer.tasks.parts.protocol import Losses
from transformer.traced import traced_fields
from transformer.training.experiment import Experiment
from transformer.training.options import CHANGEABLE
from transformer.training.recipes import Numbers, loss_of, recipe_of
from transformer.training.sections import build
from transformer.training.state import TrainState
from transformer.training.step import Count, train_steps
from transformer.types import Batch, Metrics, Params

# This pass of XLA joins kernels that have the same inputs. Here it would join all arrays of one
# shape to one kernel of thousands of operations, which takes long to compile. Without it each array
# has a kernel of its own, and threads can share the work.
_ONE_KERNEL_EACH = {"xla_disable_hlo_passes": "multi_output_fusion"}


@dataclasses.dataclass(frozen=True)
class Programs:
    """The functions that a run compiles; the numbers of its config are their arguments.

    Attributes:
        new_state: maps a random key to the state before the first step.
        steps: takes state, batches, their count and the numbers; see `step.train_steps`.
        evaluation_step: maps numbers, parameters and a batch to sums of losses, without dropout.
    """

    new_state: Callable[[Array], TrainState]
    steps: Callable[[TrainState, Batch, Count, Numbers], tuple[TrainState, Metrics]]
    evaluation_step: Callable[[Numbers, Params, Batch], Losses]


def plain_programs(experiment: Experiment) -> Programs:
    """The programs of an experiment as functions, not yet compiled.

    Experiments with the same `program_key` have the same programs.
    """

    def steps(
        state: TrainState, batches: Batch, count: Count, numbers: Numbers
    ) -> tuple[TrainState, Metrics]:
        return train_steps(recipe_of(experiment, numbers), state, batches, count)

    def evaluation_step(numbers: Numbers, params: Params, batch: Batch) -> Losses:
        return loss_of(experiment, numbers)(params, batch, {})

    return Programs(experiment.create, steps, evaluation_step)


def make_programs(experiment: Experiment) -> Programs:
    """The programs of an experiment, compiled when first called; `steps` donates its state."""
    plain = plain_programs(experiment)
    shardings = jax.tree.map(lambda x: x.sharding, experiment.shapes)
    return Programs(
        new_state=jax.jit(
            plain.new_state,
            out_shardings=shardings,
            compiler_options=creation_options(experiment.mesh.devices.flat[0].platform),
        ),
        steps=jax.jit(plain.steps, donate_argnums=0),
        evaluation_step=jax.jit(plain.evaluation_step),
    )


def creation_options(platform: str) -> dict[str, str] | None:
    """What the compiler is told of the program that makes the initial state; None for nothing.

    For that program it takes the place of `--xla_disable_hlo_passes` in `XLA_FLAGS`.

    Args:
        platform: of the devices.
    """
    return _ONE_KERNEL_EACH if platform in ("gpu", "cuda") else None


def program_key(config: ConfigDict) -> str:
    """A text that identifies the programs: the config without fields that do not affect them."""
    constants = config.to_dict()
    for name in ("task", "model", "optimizer", "train"):
        for field in traced_fields(build(name, config[name])):
            *above, last = field.split(".")
            section = constants[name]
            for inner in above:
                section = section[inner]
            del section[last]
    for field in ("seed", *CHANGEABLE):
        del constants["train"][field]
    del constants["optimizer"]["warmup"]
    return json.dumps(constants, sort_keys=True)
