"""Builds the recipe of a training step from an experiment and its numbers.

The numbers of a config (learning rates, dropout rates and so on) are arguments of its compiled
programs, so runs that differ only in numbers share these programs.
"""

import jax
import numpy as np
from jax.typing import ArrayLike

from transformer import sharding
from transformer.traced import traced_fields, with_numbers
from transformer.training.experiment import Experiment
from transformer.training.optimizers import make_optimizer, make_schedule
from transformer.training.step import LossFunction, Recipe

# By config section and field: scalars, or arrays with one entry for each of several runs.
Numbers = dict[str, dict[str, ArrayLike]]


def recipe_of(experiment: Experiment, numbers: Numbers) -> Recipe:
    """The recipe of an experiment's steps, with these numbers in place of its own."""
    updates = with_numbers(experiment.updates, numbers["optimizer"])
    schedule = make_schedule(updates, **numbers["steps"])
    return Recipe(
        loss=loss_of(experiment, numbers),
        optimizer=make_optimizer(updates, schedule, experiment.boxes, experiment.trained),
        schedule=schedule,
        microbatches=experiment.train.microbatches,
        ema_decay=numbers["train"].get("ema_decay", 0.0),
        trained=experiment.trained,
        cast=experiment.model.compute.dtype if experiment.train.cast_once else None,
    )


def loss_of(experiment: Experiment, numbers: Numbers) -> LossFunction:
    """The loss of an experiment, with these numbers in place of its own."""
    task = with_numbers(experiment.task, numbers["task"])
    model = with_numbers(experiment.model, numbers["model"])
    return lambda params, batch, rngs: task.losses(model, experiment.merged(params), batch, rngs)


def numbers_of(experiment: Experiment) -> Numbers:
    """The numbers of an experiment, on the host."""
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
    """The numbers of an experiment, on its devices."""
    return jax.device_put(numbers_of(experiment), sharding.replicated(experiment.mesh))
