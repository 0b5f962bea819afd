"""Metrics of a whole data set, every prediction counted once."""

from collections.abc import Callable
from typing import Any

import grain
import jax
import numpy as np
from jax.sharding import NamedSharding

from transformer.sharding import Mesh, batch_parts, batch_sharding, replicated
from transformer.tasks.base import Losses, filled_up
from transformer.training.runs import Run
from transformer.training.step import make_evaluation_step, mean_metrics


def make_validation(
    evaluation_step: Callable[[Any, Any], Losses], batches: grain.MapDataset, place: NamedSharding
) -> Callable[[Any, int | None], dict[str, float]]:
    """A function of parameters and the number of batches (None: all) to metrics.

    Args:
        evaluation_step: of parameters and a batch; compiled.
        batches: the part of this host.
        place: of a global batch.
    """
    totals = make_totals(evaluation_step, batches, place)

    def validate(params: Any, limit: int | None) -> dict[str, float]:
        return {name: float(value) for name, value in mean_metrics(totals(params, limit)).items()}

    return validate


def make_totals(
    evaluation_step: Callable[[Any, Any], Losses], batches: grain.MapDataset, place: NamedSharding
) -> Callable[[Any, int | None], list[Losses]]:
    """`make_validation` before means are taken: what the evaluation step gives for each batch.

    Batches that do not divide over the devices are filled up with rows that count for nothing.
    """
    parts = 1 if place.is_fully_replicated else batch_parts(place.mesh) // jax.process_count()

    def evaluated(params: Any, limit: int | None) -> list[Losses]:
        count = len(batches) if limit is None else min(limit, len(batches))
        found = []
        for index in np.linspace(0, len(batches) - 1, count).round().astype(int):
            batch = jax.tree.map(
                lambda x: jax.make_array_from_process_local_data(place, x),
                filled_up(batches[int(index)], parts),
            )
            found.append(evaluation_step(params, batch))
        return found

    return evaluated


def evaluate_run(run: Run, data: Any) -> dict[str, Any]:
    """Evaluates the checkpoint of a run.

    Args:
        run: opened by `open_run`.
        data: from the `load` or `load_validation` of its task.

    Returns:
        The step, the task's metrics and its scores.
    """
    mesh = Mesh().make()

    def loss(params: Any, batch: Any, rngs: dict[str, jax.Array]) -> Losses:
        return run.task.losses(run.model, params, batch, rngs)

    validate = make_validation(
        jax.jit(make_evaluation_step(loss)),
        run.task.validation_batches(data),
        batch_sharding(mesh),
    )
    params = jax.device_put(run.params, replicated(mesh))
    metrics = validate(params, None)
    return {"step": run.step, **metrics, **run.task.scores(run.model, params, data)}
