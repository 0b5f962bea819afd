"""What a run compiles; runs that differ in numbers only compile the same."""

import dataclasses
import functools
import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from transformer import sharding
from transformer.tasks.parts.protocol import Losses
from transformer.traced import traced_fields, with_numbers
from transformer.training.experiment import Experiment
from transformer.training.optimizers import make_optimizer, make_schedule
from transformer.training.options import CHANGEABLE
from transformer.training.sections import build
from transformer.training.state import TrainState
from transformer.training.step import (
    LossFunction,
    make_evaluation_step,
    make_train_step,
    repeat,
)

# By section of the config and field: scalars, or arrays with an entry for each trial.
Numbers = dict[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Programs:
    """The functions of a run, to be compiled; its numbers are arguments of them.

    Attributes:
        new_state: of a key, the state before the first step.
        steps: of state, batches, their count and the numbers; see `step.repeat`.
        evaluation_step: of the numbers, parameters and a batch; sums, nothing dropped.
    """

    new_state: Callable[[Any], TrainState]
    steps: Callable[[TrainState, Any, Any, Numbers], tuple[TrainState, dict[str, Any]]]
    evaluation_step: Callable[[Numbers, Any, Any], Losses]


def plain_programs(experiment: Experiment) -> Programs:
    """The programs of an experiment as functions that are not compiled yet.

    They are those of every other experiment with the same `program_key`, too.
    """

    def loss(numbers: Numbers) -> LossFunction:
        task = with_numbers(experiment.task, numbers["task"])
        model = with_numbers(experiment.model, numbers["model"])

        def losses(params: Any, batch: Any, rngs: dict[str, jax.Array]) -> Losses:
            return task.losses(model, experiment.merged(params), batch, rngs)

        return losses

    def steps(state: TrainState, batches: Any, count: Any, numbers: Numbers) -> Any:
        updates = with_numbers(experiment.updates, numbers["optimizer"])
        schedule = make_schedule(updates, **numbers["steps"])
        step = make_train_step(
            loss(numbers),
            make_optimizer(updates, schedule, experiment.boxes, experiment.trained),
            schedule,
            microbatches=experiment.train.microbatches,
            ema_decay=numbers["train"].get("ema_decay", 0.0),
            trained=experiment.trained,
        )
        return repeat(step, experiment.train.steps_per_dispatch)(state, batches, count)

    def evaluation_step(numbers: Numbers, params: Any, batch: Any) -> Losses:
        return make_evaluation_step(loss(numbers))(params, batch)

    return Programs(experiment.create, steps, evaluation_step)


def make_programs(experiment: Experiment) -> Programs:
    """The programs of an experiment, compiled when first called; `steps` donates its state."""
    plain = plain_programs(experiment)
    places = jax.tree.map(lambda x: x.sharding, experiment.shapes)
    return Programs(
        new_state=jax.jit(plain.new_state, out_shardings=places),
        steps=jax.jit(plain.steps, donate_argnums=0),
        evaluation_step=jax.jit(plain.evaluation_step),
    )


def numbers_of(experiment: Experiment) -> Numbers:
    """The numbers of an experiment, as its programs take them."""
    sections = (
        ("task", experiment.task),
        ("model", experiment.model),
        ("optimizer", experiment.updates),
        ("train", experiment.train),
    )
    numbers: Numbers = {
        name: {field: np.float32(value) for field, value in traced_fields(made).items()}
        for name, made in sections
    }
    numbers["steps"] = {
        "warmup_steps": np.int32(experiment.warmup_steps),
        "total_steps": np.int32(experiment.total_steps),
    }
    return numbers


def placed_numbers(experiment: Experiment) -> Numbers:
    """The same, on the devices of the experiment."""
    place = functools.partial(jax.device_put, device=sharding.replicated(experiment.mesh))
    return jax.tree.map(place, numbers_of(experiment))


def program_key(config: Any) -> str:
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
