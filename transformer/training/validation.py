"""Metrics of a whole data set, every prediction counted once."""

from collections.abc import Callable
from typing import Any

import grain
import jax
import numpy as np
from jax.sharding import NamedSharding

from transformer.sharding import Mesh, batch_sharding, replicated
from transformer.training.runs import Run
from transformer.training.step import LossFunction, make_evaluation_step, mean_metrics


def make_validation(
    loss: LossFunction, batches: grain.MapDataset, place: NamedSharding
) -> Callable[[Any, int | None], dict[str, float]]:
    """A function of parameters and the number of batches (None: all) to metrics.

    Args:
        loss: of the task.
        batches: the part of this host.
        place: of a global batch.
    """
    evaluation_step = jax.jit(make_evaluation_step(loss))

    def validate(params: Any, limit: int | None) -> dict[str, float]:
        count = len(batches) if limit is None else min(limit, len(batches))
        totals = []
        for index in np.linspace(0, len(batches) - 1, count).round().astype(int):
            batch = jax.tree.map(
                lambda x: jax.make_array_from_process_local_data(place, x), batches[int(index)]
            )
            totals.append(evaluation_step(params, batch))
        return {name: float(value) for name, value in mean_metrics(totals).items()}

    return validate


def evaluate_run(run: Run, data: Any) -> dict[str, Any]:
    """Evaluates the checkpoint of a run.

    Args:
        run: opened by `open_run`.
        data: from the `load` or `load_validation` of its task.

    Returns:
        The step, the task's metrics and its scores.
    """
    mesh = Mesh().make()
    validate = make_validation(
        lambda params, batch, rngs: run.task.losses(run.model, params, batch, rngs),
        run.task.validation_batches(data),
        batch_sharding(mesh),
    )
    params = jax.device_put(run.params, replicated(mesh))
    metrics = validate(params, None)
    return {"step": run.step, **metrics, **run.task.scores(run.model, params, data)}
