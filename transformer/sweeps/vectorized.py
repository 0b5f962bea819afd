"""Programs that advance many trials at once, and the devices that they are cut over."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType

from transformer.nn.attention import for_many_at_once
from transformer.training.experiment import Experiment
from transformer.training.programs import plain_programs

AXIS = "population"


def vectorized_programs(
    first: Experiment, vectorize: str
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The training steps and the evaluation step of a population, jitted."""
    if vectorize == "vmap":
        first = dataclasses.replace(first, model=for_many_at_once(first.model))
    plain = plain_programs(first)
    if vectorize == "vmap":
        steps = jax.vmap(plain.steps, in_axes=(0, 0, None, 0))
        evaluate = jax.vmap(plain.evaluation_step, in_axes=(0, 0, None))
        return jax.jit(steps, donate_argnums=0), jax.jit(evaluate)

    def scanned_steps(state: Any, batches: Any, count: Any, numbers: Any) -> Any:
        def one(trial: tuple) -> Any:
            state, batches, numbers = trial
            return plain.steps(state, batches, count, numbers)

        return jax.lax.map(one, (state, batches, numbers))

    def scanned_evaluation(numbers: Any, params: Any, batch: Any) -> Any:
        def one(trial: tuple) -> Any:
            numbers, params = trial
            return plain.evaluation_step(numbers, params, batch)

        return jax.lax.map(one, (numbers, params))

    return jax.jit(scanned_steps, donate_argnums=0), jax.jit(scanned_evaluation)


def trial_mesh(trials: int) -> jax.sharding.Mesh:
    """As many devices as trials can be cut over evenly."""
    devices = jax.local_devices()
    count = max(n for n in range(1, len(devices) + 1) if trials % n == 0)
    return jax.make_mesh((count,), (AXIS,), axis_types=(AxisType.Auto,), devices=devices[:count])
