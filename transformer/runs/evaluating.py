"""Evaluates a trained run on validation data."""

import jax

from transformer.runs.opening import Run
from transformer.sharding import Mesh, batch_sharding, replicated
from transformer.tasks.parts.protocol import Dataset, Losses
from transformer.training.validation import means, validation_totals
from transformer.types import Batch, Json, Params


def evaluate_run(run: Run, data: Dataset) -> Json:
    """Evaluates the checkpoint of a run.

    Args:
        run: opened by `open_run`.
        data: from `load` or `load_validation` of its task.

    Returns:
        The step, the task's metrics and its scores.
    """
    mesh = Mesh(slices=-1).make()

    def evaluation_step(params: Params, batch: Batch) -> Losses:
        return run.task.losses(run.model, params, batch, {})

    params = jax.device_put(run.params, replicated(mesh))
    batches = data.validation_batches()
    totals = validation_totals(jax.jit(evaluation_step), batches, batch_sharding(mesh), params)
    scores = run.task.scores(run.model, params, data)
    return {"step": run.step, **means(totals), **scores}
