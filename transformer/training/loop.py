"""The one training loop, for every task, from top to bottom."""

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from transformer import sharding
from transformer.errors import NonFiniteLossError
from transformer.nn.attention import for_any_shape, require_platform
from transformer.training import experiment as experiments
from transformer.training.checkpoints import Checkpoints, Restored
from transformer.training.experiment import Experiment
from transformer.training.feeding import Feeder
from transformer.training.flops import peak_flops
from transformer.training.initialization import initialized
from transformer.training.metrics import (
    MetricsWriter,
    Progress,
    draw_curves,
    read_metrics,
    tensorboard_is_installed,
)
from transformer.training.notes import Notes, newest_notes, require_config
from transformer.training.processes import StopRequest, brought_together, is_first, meet
from transformer.training.programs import Programs, make_programs, placed_numbers, program_key
from transformer.training.runs import read_parameters
from transformer.training.saved_runs import adopt_workdir, write_config
from transformer.training.selection import split
from transformer.training.shared import Shared
from transformer.training.state import TrainState
from transformer.training.step import parameter_groups
from transformer.training.validation import make_validation

# The last evaluation of a run is of all batches. What it is compared with is of some, and so is
# this loss.
SAMPLED = "sampled_loss"


def train(
    config: ConfigDict,
    workdir: Path,
    *,
    shared: Shared | None = None,
    enough: Callable[[int, float], bool] | None = None,
    curves: bool = True,
) -> tuple[int, dict[str, Any]]:
    """Trains, or goes on training, in a run folder.

    Args:
        config: of the experiment.
        workdir: the run folder; made if it does not exist.
        shared: what other runs of this process have read and compiled.
        enough: whether to stop for good, asked with step and loss of every validation.
        curves: whether to draw them at the end.

    Returns:
        The exit code (0, or 128 + signal if asked to stop) and what to report: the step reached,
        the last metrics of each split and the folder.

    Raises:
        UserError: for whatever the user can mend.
    """
    # ---------------------------------------------------------------- setup
    config = adopt_workdir(config, workdir)
    experiment = experiments.prepare(config, workdir, shared=shared)
    options, total = experiment.train, experiment.total_steps
    every = {name: experiment.steps(name) for name in ("log_every", "evaluate_every", "save_every")}
    require_platform(experiment.model.attention)
    about = experiments.metadata_of(experiment)
    experiments.require_same_run(about, workdir, newest_notes(workdir))
    meet("all have read the folder")
    if is_first():
        workdir.mkdir(parents=True, exist_ok=True)
        write_config(experiment.config, workdir)
        experiment.task.save(experiment.data, workdir)
    meet("one has written it")

    # --------------------------------------------------- new state, or restored
    # What is open is closed in any case, an error too.
    with contextlib.ExitStack() as held:
        checkpoints = held.enter_context(Checkpoints(workdir, keep_last=options.keep_last))
        progress = Progress(total, shown=is_first())
        restored = checkpoints.restore_newest(checkpoint_items(experiment.shapes), progress.say)
        shared = Shared() if shared is None else shared
        programs = shared.once(program_key(experiment.config), lambda: make_programs(experiment))
        state, position = begin(experiment, programs, restored, progress, about)
        step = int(state.step)
        if step >= total:
            progress.say(f"The run in {workdir} is finished: {step} of {total} steps are done.")
            return 0, summary(workdir, step)
        if restored is not None:
            progress.say(f"Resuming {workdir} from step {step}.")

        # -------------------------------------------------------------- compile once
        numbers, most = placed_numbers(experiment), options.steps_per_dispatch
        example = experiment.task.example_inputs(experiment.model)
        attention = experiment.model.chosen_attention(*example)
        progress.say(experiment.task.describe(experiment.data))
        progress.say(f"Attention implementation: {attention}.")
        for warning in experiment.warnings():
            progress.say(warning)
        feeder = Feeder(
            experiment.task.train_batches(experiment.data, seed=options.seed, num_steps=total),
            sharding.batch_sharding(experiment.mesh, leading_axes=1),
            most=most,
            position=position,
        )
        held.callback(feeder.close)
        validate = make_validation(
            functools.partial(programs.evaluation_step, numbers),
            experiment.task.validation_batches(experiment.data),
            sharding.batch_sharding(experiment.mesh),
        )
        if options.tensorboard and not tensorboard_is_installed():
            progress.say("No TensorBoard files: install them with pip install -e '.[tensorboard]'.")
        tensorboard = options.tensorboard and tensorboard_is_installed()
        writer = MetricsWriter(workdir, step=step, tensorboard=tensorboard, writes=is_first())
        held.callback(writer.close)
        reporter = Reporter(experiment, writer, progress, every["log_every"])

        # ---------------------------------------------------------------------- loop
        pending, pruned = None, False
        held.callback(progress.close)
        progress.start(step)
        stop = held.enter_context(StopRequest())
        held.enter_context(jax.set_mesh(experiment.mesh))
        while step < total:
            end = min(step + most, total, *(next_multiple(step, n) for n in every.values()))
            batches, count = feeder.take(end - step)
            state, metrics = programs.steps(state, batches, count, numbers)
            # The report of the steps before is made while the device works on these.
            reporter.report(pending)
            pending = (step, count, metrics, reporter.flops(batches))
            step += count

            evaluate = step % every["evaluate_every"] == 0 or step == total
            save = step % every["save_every"] == 0 or step == total
            # Looked at once: a signal that comes later is seen a step later.
            stopping = stop.asked()
            if not (evaluate or save or stopping):
                continue
            # Nothing is saved before its losses are known to be finite.
            reporter.report(pending)
            pending, validation_loss = None, None
            if evaluate:
                limit = options.validation_batches
                measured = validate(state.evaluated, None if step == total else limit)
                if step == total and limit is not None:
                    measured[SAMPLED] = validate(state.evaluated, limit)["loss"]
                validation_loss = reporter.validated(step, measured)
                pruned = enough is not None and enough(step, validation_loss) and step < total
            if save or stopping or pruned:
                checkpoints.save(
                    step,
                    checkpoint_items(state),
                    data=feeder.position,
                    metadata=about,
                    validation_loss=validation_loss,
                )
            if stopping or pruned:
                break
        checkpoints.wait()

    # ------------------------------------------------------------------- the end
    picture = draw_curves(workdir) if curves and is_first() else None
    if stop.signal is not None and step < total:
        progress.say(f"Stopped at step {step} of {total}; the same command goes on from there.")
        return stop.exit_code, summary(workdir, step)
    if pruned:
        progress.say(f"Step {step} of {total} is enough of this run.")
        return 0, summary(workdir, step)
    params = experiment.merged(brought_together(state.evaluated))
    if not is_first():
        return 0, summary(workdir, step)
    progress.say(f"{show(experiment, params, workdir, step)}\n")
    progress.say(f"Finished {total} steps." + (f" Loss curves: {picture}" if picture else ""))
    return 0, summary(workdir, step)


def show(experiment: Experiment, params: Any, workdir: Path, step: int) -> str:
    """Writes what the task shows after training, logs its scores, and returns its text."""
    # Nothing is dropped any more: models that differ in that only are one to what is compiled.
    model = for_any_shape(experiment.model.clone(dropout_rate=0.0))
    shown = experiment.task.show(model, params, experiment.data, workdir)
    if shown.scores:
        tensorboard = experiment.train.tensorboard and tensorboard_is_installed()
        writer = MetricsWriter(workdir, step=step, tensorboard=tensorboard)
        writer.write(step, "final", shown.scores)
        writer.close()
    return shown.text


def summary(workdir: Path, step: int) -> dict[str, Any]:
    """The step reached and the last metrics of each split."""
    last = {line["split"]: line for line in read_metrics(workdir)}
    return {"workdir": str(workdir), "step": step} | {
        split: {k: v for k, v in line.items() if k != "split"} for split, line in last.items()
    }


class Reporter:
    """Writes and shows what the device has computed, and refuses losses that are not finite."""

    def __init__(
        self, experiment: Experiment, writer: MetricsWriter, progress: Progress, log_every: int
    ) -> None:
        self._writer, self._progress, self._log_every = writer, progress, log_every
        trained, _ = split(experiment.shapes.params, experiment.trained)
        self._groups = list(parameter_groups(trained))
        self._experiment = experiment
        self._tokens = experiment.clock.tokens_per_step
        self._peak = peak_flops()
        self._flops: dict[tuple, int] = {}
        self._last = time.monotonic()
        self._previous_norms: np.ndarray | None = None

    def flops(self, batches: Any) -> int | None:
        """Of one step on batches of these shapes; None where no peak is known to compare with."""
        if self._peak is None:
            return None
        shapes = tuple(array.shape[1:] for array in jax.tree.leaves(batches))
        if shapes not in self._flops:
            one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), batches)
            self._flops[shapes] = self._experiment.flops_per_step(one)
        return self._flops[shapes]

    def report(self, pending: tuple[int, int, Any, int | None] | None) -> None:
        """Waits for the metrics of `count` steps after `start` and writes those due."""
        if pending is None:
            return
        start, count, metrics, flops = pending
        metrics = jax.device_get(metrics)
        now = time.monotonic()
        step_time, self._last = (now - self._last) / count, now
        groups = metrics.pop("group_norms")
        for index in range(count):
            scalars = {name: float(values[index]) for name, values in metrics.items()}
            step = start + index + 1
            if not (math.isfinite(scalars["loss"]) and math.isfinite(scalars["grad_norm"])):
                self._blame(step, scalars["loss"], groups[index])
            self._previous_norms = groups[index]
            if step % self._log_every == 0:
                speed = {
                    "tokens_per_second": self._tokens / step_time,
                    "step_time": step_time,
                }
                if flops is not None and self._peak is not None:
                    speed["mfu"] = flops / self._peak / step_time
                self._writer.write(step, "train", scalars | speed)
                shown = {
                    "loss": f"{scalars['loss']:.3f}",
                    "tokens/s": f"{speed['tokens_per_second']:,.0f}",
                }
                if "mfu" in speed:
                    shown["MFU"] = f"{speed['mfu']:.1%}"
                self._progress.update(step, **shown)
        self._progress.update(start + count)

    def validated(self, step: int, metrics: dict[str, float]) -> float:
        """Writes and shows validation metrics; returns the loss to compare checkpoints by."""
        self._writer.write(step, "validation", metrics)
        self._progress.say(
            f"step {step}: validation "
            + ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        )
        self._last = time.monotonic()
        return metrics.get(SAMPLED, metrics["loss"])

    def _blame(self, step: int, loss: float, norms: np.ndarray) -> None:
        before = self._previous_norms
        lines = []
        for index, group in enumerate(self._groups):
            last = "-" if before is None else f"{before[index]:.3g}"
            mark = "" if math.isfinite(norms[index]) else "   <- not finite"
            lines.append(f"  {group:<28} {last:>12} {norms[index]:>12.3g}{mark}")
        raise NonFiniteLossError(
            f"the loss of step {step} is {loss}: training cannot go on. Gradient norms by "
            f"parameter group:\n  {'group':<28} {f'step {step - 1}':>12} {f'step {step}':>12}\n"
            + "\n".join(lines)
            + "\nThe last good checkpoint is kept. A smaller --config.optimizer.learning_rate, a "
            "longer --config.optimizer.warmup or a smaller --config.optimizer.clip_norm may help; "
            "they need a new --workdir."
        )


def checkpoint_items(state: TrainState) -> dict[str, Any]:
    """What a checkpoint holds, in parts that can be restored alone."""
    items = {
        "params": state.params,
        "training": {"step": state.step, "optimizer": state.optimizer, "key": state.key},
    }
    if state.average is not None:
        items["average"] = state.average
    return items


def begin(
    experiment: Experiment,
    programs: Programs,
    restored: Restored | None,
    progress: Progress,
    about: Mapping[str, Any],
) -> tuple[TrainState, Any]:
    """The state to start from and the position in the data.

    Args:
        experiment: of the run.
        programs: of the experiment.
        restored: what a checkpoint held; None begins.
        progress: is told from which other run parameters come.
        about: the run; from `experiment.metadata_of`.

    Raises:
        WorkdirError: if the checkpoint is of another run.
    """
    if restored is None:
        state = programs.new_state(jax.random.key(experiment.train.seed))
        return _from_other_run(experiment, state, progress), None
    notes = Notes(restored.step, restored.data, restored.metadata)
    require_config(experiment.config, notes, "the config of this run")
    experiments.require_same_data(about, notes)
    training = restored.state["training"]
    state = TrainState(
        step=training["step"],
        params=restored.state["params"],
        optimizer=training["optimizer"],
        average=restored.state.get("average"),
        key=training["key"],
    )
    return state, restored.data


def _from_other_run(experiment: Experiment, state: TrainState, progress: Progress) -> TrainState:
    """The state with the parameters of the run that `config.init` names, if it names one."""
    init = experiment.init
    if not init.workdir:
        return state
    source = Path(init.workdir)
    saved = read_parameters(source, init.checkpoint)
    experiment.task.check_run(source, saved.metadata["data_fingerprint"])
    params, report = initialized(
        state.params,
        saved.params,
        init,
        getattr(experiment.model, "refit", None),
        experiment.heads(),
    )
    progress.say(report)
    average = None if state.average is None else jax.tree.map(jnp.copy, params)
    return dataclasses.replace(state, params=params, average=average)


def next_multiple(step: int, every: int) -> int:
    """The next multiple of `every` after `step`."""
    return (step // every + 1) * every
