"""How good a trained run is on validation data."""

from typing import Any

import jax

from transformer.runs.opening import Run
from transformer.sharding import Mesh, batch_sharding, replicated
from transformer.tasks.parts.protocol import Losses
from transformer.training.step import make_evaluation_step
from transformer.training.validation import make_validation


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
