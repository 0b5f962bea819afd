"""The end of a run: what its task shows, its scores, its curves, and the mark that all is there.

It is a step like any other: what a killed run did not get to is done when it is started again, from
the parameters in its last checkpoint.
"""

import json
from pathlib import Path

import jax

from transformer.files import filling, write_json
from transformer.nn.attention import for_any_shape
from transformer.pictures.curves import draw_curves
from transformer.training.experiment import Experiment
from transformer.training.metrics import (
    MetricsWriter,
    Say,
    read_metrics,
    tensorboard_is_installed,
)
from transformer.training.processes import gather, is_first
from transformer.training.state import TrainState
from transformer.types import Json, Params, Scalars

FINISHED_FILE = "finished.json"
# Splits of `metrics.jsonl`: of the validation data, and scores at the end.
VALIDATION, FINAL = "validation", "final"
# The last evaluation of a run is of all batches. What it is compared with is of some, and so is
# this loss.
SAMPLED = "sampled_loss"


def is_finished(workdir: Path, step: int) -> bool:
    """Whether all that is made at the end of a run is there, and was made at this step."""
    try:
        mark = json.loads((workdir / FINISHED_FILE).read_bytes())
        there = all((workdir / name).exists() for name in mark["files"])
        splits = {line["split"] for line in read_metrics(workdir) if line["step"] == step}
        wanted = {VALIDATION, FINAL} if mark["scores"] else {VALIDATION}
        return mark["step"] == step and there and wanted <= splits
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False


def is_validated(workdir: Path, step: int, limit: int | None) -> bool:
    """Whether the last evaluation of a run is written, which is of all batches."""
    return any(
        limit is None or SAMPLED in line
        for line in read_metrics(workdir)
        if line["step"] == step and line["split"] == VALIDATION
    )


def finish(
    experiment: Experiment,
    state: TrainState,
    workdir: Path,
    step: int,
    *,
    curves: bool,
    say: Say,
) -> None:
    """Shows what the task shows after training, logs its scores, and marks the run as finished.

    Several processes call this together, and the first one does it.

    Args:
        experiment: of the run.
        state: after its last step.
        workdir: the run folder; files that are there from an earlier end are replaced.
        step: that was reached.
        curves: whether to draw them.
        say: tells people.
    """
    params = experiment.merged(gather(_as_restored(experiment, state)))
    if not is_first():
        return
    # Nothing is dropped any more: models that differ in that only are one to what is compiled.
    model = for_any_shape(experiment.model.clone(dropout_rate=0.0))
    with filling(workdir) as folder:
        shown = experiment.task.show(model, params, experiment.data, folder)
        files = sorted(path.name for path in folder.iterdir())
    write_again(experiment, workdir, step, FINAL, shown.scores, say)
    picture = write_curves(workdir) if curves else None
    if picture is not None:
        files.append(picture.name)
    total = experiment.total_steps
    mark = {"step": step, "total_steps": total, "files": files, "scores": list(shown.scores)}
    write_json(workdir / FINISHED_FILE, mark)
    say(f"{shown.text}\n")
    say(f"Finished {total} steps." + (f" Loss curves: {picture}" if picture else ""))


def write_curves(workdir: Path) -> Path | None:
    """The losses of a run as `curves.png`; None if nothing was measured yet."""
    path = workdir / "curves.png"
    return path if draw_curves(read_metrics(workdir), path) else None


def write_again(
    experiment: Experiment,
    workdir: Path,
    step: int,
    split: str,
    scalars: Scalars,
    say: Say,
) -> None:
    """Writes metrics of the last step, in place of those that a killed run may have written."""
    writer = MetricsWriter(
        workdir,
        step=step,
        tensorboard=experiment.train.tensorboard and tensorboard_is_installed(),
        say=say,
        writes=is_first(),
        again=split,
    )
    if scalars:
        writer.write(step, split, scalars)
    writer.flush()
    writer.close()


def _as_restored(experiment: Experiment, state: TrainState) -> Params:
    """The parameters to show, on the devices where a checkpoint brings them.

    So what is shown does not depend on whether the run was stopped before.
    """
    if jax.process_count() > 1:
        return state.evaluated
    shardings = jax.tree.map(lambda x: x.sharding, experiment.shapes.evaluated)
    return jax.device_put(state.evaluated, shardings)


def summary(workdir: Path, step: int, say: Say | None = None) -> Json:
    """The step reached and the last metrics of each split.

    Args:
        workdir: the run folder.
        step: that was reached.
        say: is told of lines of metrics that cannot be read.
    """
    last = {line["split"]: line for line in read_metrics(workdir, say)}
    return {"workdir": str(workdir), "step": step} | {
        split: {k: v for k, v in line.items() if k != "split"} for split, line in last.items()
    }
