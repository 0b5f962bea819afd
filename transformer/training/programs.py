"""What a run compiles; runs that differ in numbers only compile the same."""

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


@dataclasses.dataclass(frozen=True)
class Programs:
    """The functions of a run, to be compiled; its numbers are arguments of them.

    Attributes:
        new_state: of a random key, the state before the first step.
        steps: of state, batches, their count and the numbers; see `step.train_steps`.
        evaluation_step: of the numbers, parameters and a batch: sums, nothing dropped.
    """

    new_state: Callable[[Array], TrainState]
    steps: Callable[[TrainState, Batch, Count, Numbers], tuple[TrainState, Metrics]]
    evaluation_step: Callable[[Numbers, Params, Batch], Losses]


def plain_programs(experiment: Experiment) -> Programs:
    """The programs of an experiment as functions that are not compiled yet.

    They are those of every other experiment with the same `program_key`, too.
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
        new_state=jax.jit(plain.new_state, out_shardings=shardings),
        steps=jax.jit(plain.steps, donate_argnums=0),
        evaluation_step=jax.jit(plain.evaluation_step),
    )


def program_key(config: ConfigDict) -> str:
    """What the programs are made from, as text: the config without what is no constant of them."""
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
