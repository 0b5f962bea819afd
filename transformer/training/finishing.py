"""The end of a run: the task's pictures, its scores, its loss curves, and a marker file.

If a run is killed before all of this is done, restarting it does the rest, from the parameters in
its last checkpoint.
"""

import json
from pathlib import Path

import jax

from transformer.files import filling, write_json
from transformer.nn.compute import for_any_shape
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
# Splits of `metrics.jsonl`: validation metrics, and scores at the end of the run.
VALIDATION, FINAL = "validation", "final"
# The last evaluation of a run uses all batches; earlier ones use a sample. This key holds the last
# loss over that same sample, to compare with them.
SAMPLED = "sampled_loss"


def is_finished(workdir: Path, step: int) -> bool:
    """Whether the end of a run was completed at this step."""
    try:
        mark = json.loads((workdir / FINISHED_FILE).read_bytes())
        there = all((workdir / name).exists() for name in mark["files"])
        splits = {line["split"] for line in read_metrics(workdir) if line["step"] == step}
        wanted = {VALIDATION, FINAL} if mark["scores"] else {VALIDATION}
        return mark["step"] == step and there and wanted <= splits
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False


def is_validated(workdir: Path, step: int, limit: int | None) -> bool:
    """Whether the last evaluation of a run, over all batches, is written."""
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
    """Shows the task's results, logs its scores, and marks the run as finished.

    All processes call this; only the first one does the work.

    Args:
        experiment: the experiment of the run.
        state: the state after the last step.
        workdir: the run folder; files from an earlier end are replaced.
        step: the step that was reached.
        curves: whether to draw the loss curves.
        say: prints messages.
    """
    params = experiment.merged(gather(_as_restored(experiment, state)))
    if not is_first():
        return
    # Without dropout, models that differ only in dropout share one compiled program.
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
    """Draws the losses of a run in `curves.png`; returns None if nothing was measured yet."""
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
    """Writes metrics of the last step, replacing those that a killed run may have written."""
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
    """The parameters to show, on the devices where restoring a checkpoint puts them.

    So results do not depend on whether the run was stopped before.
    """
    if jax.process_count() > 1:
        return state.evaluated
    shardings = jax.tree.map(lambda x: x.sharding, experiment.shapes.evaluated)
    return jax.device_put(state.evaluated, shardings)


def summary(workdir: Path, step: int, say: Say | None = None) -> Json:
    """The step reached and the last metrics of each split.

    Args:
        workdir: the run folder.
        step: the step that was reached.
        say: reports lines of metrics that cannot be read.
    """
    last = {line["split"]: line for line in read_metrics(workdir, say)}
    return {"workdir": str(workdir), "step": step} | {
        split: {k: v for k, v in line.items() if k != "split"} for split, line in last.items()
    }
