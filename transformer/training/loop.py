"""The training loop of all tasks, for one run or for many runs that train together."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from transformer.errors import NonFiniteLossError
from transformer.installed import as_typed
from transformer.training.ahead import ahead
from transformer.training.execution import Execution, alone
from transformer.training.finishing import (
    VALIDATION,
    finish,
    is_finished,
    is_validated,
    summary,
    write_again,
    write_curves,
)
from transformer.training.metrics import Progress, tensorboard_is_installed
from transformer.training.opened import Opened, open_run
from transformer.training.processes import (
    StopRequest,
    first_says,
    is_first,
    take_back_signals,
)
from transformer.training.profiling import Profiler, Span
from transformer.training.shared import Shared
from transformer.training.spending import TIME, Spending
from transformer.training.state import TrainState
from transformer.types import Json, Metrics, Scalars

# Takes step and validation loss; returns whether to stop the run for good.
ShouldStop = Callable[[int, float], bool]
# Takes a run and the error of its loss.
OnFailure = Callable[[Opened, NonFiniteLossError], None]


def train(
    config: ConfigDict,
    workdir: Path,
    *,
    shared: Shared | None = None,
    should_stop: ShouldStop | None = None,
    curves: bool = True,
    profile: Span | None = None,
) -> tuple[int, Json]:
    """Starts or resumes training in a run folder.

    Args:
        config: the config of the experiment.
        workdir: the run folder; made if it does not exist.
        shared: data and programs that runs of this process share.
        should_stop: whether to stop for good; called after every validation.
        curves: whether to draw loss curves at the end.
        profile: the steps to trace.

    Returns:
        The exit code (0, or 128 + signal if asked to stop) and a report: the step reached, the last
        metrics of each split and the folder.

    Raises:
        UserError: for anything the user can fix.
    """
    shared, spending = Shared() if shared is None else shared, Spending()
    # Everything is closed in any case, also after an error.
    run, state = open_run(config, workdir, shared=shared)
    with contextlib.closing(run):
        step, total, say = run.step, run.experiment.total_steps, run.progress.say
        if step >= total and first_says(is_finished(workdir, step)):
            say(f"The run in {workdir} is finished: {step} of {total} steps are done.")
            return 0, summary(workdir, step, say)
        if step >= total:
            say(f"{step} of {total} steps are done; the end of {workdir} is made again.")
        elif step > 0:
            say(f"Resuming {workdir} from step {step}.")
        execution = ahead(run, alone(run))
        if step < total:
            announce(run)
            profiler = None if profile is None else Profiler(profile, workdir, total, say)
            state, step, code = advance(
                [run],
                execution,
                state,
                run.progress,
                should_stop=should_stop,
                spending=spending,
                profiler=profiler,
            )
            if not (code or run.alive):
                say(f"Stopped early at step {step} of {total}.")
            if code or not run.alive:
                if curves and is_first():
                    write_curves(workdir)
                return code, summary(workdir, step)
        complete([run], execution, state, step, curves=curves)
        return 0, summary(workdir, step)


def advance(
    runs: Sequence[Opened],
    execution: Execution,
    state: TrainState,
    progress: Progress,
    *,
    should_stop: ShouldStop | None = None,
    on_failure: OnFailure | None = None,
    spending: Spending | None = None,
    profiler: Profiler | None = None,
) -> tuple[TrainState, int, int]:
    """Trains the remaining steps, validates and saves, until all are done or it is stopped.

    Args:
        runs: runs at the same step, with the same pace and the same number of steps.
        execution: executes these runs.
        state: the state of all runs; donated.
        progress: the progress of all runs.
        should_stop: whether to stop a run for good; called after every validation.
        on_failure: called when the loss of a run is not finite; the others go on. None raises.
        spending: counts the time; None begins to count now.
        profiler: traces some steps; None traces none.

    Returns:
        The state and the step reached, both saved, and 0, or 128 + signal if asked to stop.

    Raises:
        NonFiniteLossError: see `on_failure`.
    """
    experiment, step = runs[0].experiment, runs[0].step
    options, total = experiment.train, experiment.total_steps
    every = {name: experiment.steps(name) for name in ("log_every", "evaluate_every", "save_every")}
    pending, spending = None, Spending() if spending is None else spending
    with training(runs, execution, progress, profiler) as stop, spending.on("steps"):
        while step < total and any(run.alive for run in runs):
            next_stops = [next_multiple(step, steps) for steps in every.values()]
            if profiler is not None:
                profiler.at(step, state)
                next_stops.append(profiler.next_stop(step) or total)
            end = min(step + options.steps_per_dispatch, total, *next_stops)
            before = spending.on_data()
            with spending.on("data"):
                batches, count = execution.take(runs, end - step)
            waited = (spending.on_data() - before) / count
            state, metrics = execution.steps(state, batches, count)
            # Report the previous steps while the device works on these.
            report(runs, execution, pending, progress, on_failure)
            pending = Pending(step, count, metrics, waited, execution.flops(batches))
            step += count

            evaluates = step % every["evaluate_every"] == 0 or step == total
            saves = step % every["save_every"] == 0 or step == total
            # Checked only once: a later signal is seen one step later.
            stopping = stop.asked()
            if not (evaluates or saves or stopping):
                continue
            # Check that the losses are finite before saving.
            report(runs, execution, pending, progress, on_failure)
            pending, measured = None, None
            if evaluates:
                validate = execution.last_validation if step == total else execution.validate
                with spending.on("evaluation"):
                    measured = validate(state.evaluated, options.validation_batches, len(runs))
                for run in runs:
                    if run.alive:
                        run.writer.write(step, TIME, spending.scalars())
            with spending.on("checkpoints"):
                record(runs, execution, state, step, measured, saves or stopping, should_stop)
            if stopping:
                break
        if profiler is not None:
            profiler.at(step, state)
        with spending.on("checkpoints"):
            for run in runs:
                run.checkpoints.wait()
        progress.say(str(spending))

    if stop.signal is not None:
        progress.say(f"Stopped at step {step} of {total}; the same command goes on from there.")
    return state, step, stop.exit_code


@contextlib.contextmanager
def training(
    runs: Sequence[Opened],
    execution: Execution,
    progress: Progress,
    profiler: Profiler | None = None,
) -> Iterator[StopRequest]:
    """Keeps open what training needs; yields the request to stop."""
    with contextlib.ExitStack() as held:
        if profiler is not None:
            held.callback(profiler.close)
        for run in runs:
            held.enter_context(run.started())
        held.callback(progress.close)
        progress.start(runs[0].step)
        held.callback(execution.close)
        stop = held.enter_context(StopRequest())
        held.enter_context(execution.entered())
        yield stop


class Pending(NamedTuple):
    """Steps that the device is working on.

    Attributes:
        start: the step before the first of them.
        count: number of steps.
        metrics: the metrics of all runs, `[limit, ...]` each.
        waited: how many seconds one of them has waited for its data.
        flops: FLOPs of a step of one run; None if they are not counted.
    """

    start: int
    count: int
    metrics: Metrics
    waited: float
    flops: int | None


def report(
    runs: Sequence[Opened],
    execution: Execution,
    pending: Pending | None,
    progress: Progress,
    on_failure: OnFailure | None,
) -> None:
    """Waits for the metrics of pending steps and lets each run write its own.

    Raises:
        NonFiniteLossError: if a loss is not finite and `on_failure` is None.
    """
    if pending is None:
        return
    metrics = jax.device_get(pending.metrics)
    for index, run in enumerate(runs):
        if not run.alive:
            continue
        try:
            part = execution.part(metrics, index)
            run.reporter.report(pending.start, pending.count, part, pending.waited, pending.flops)
        except NonFiniteLossError as error:
            if on_failure is None:
                raise
            run.alive = False
            on_failure(run, error)
    progress.update(pending.start + pending.count)


def record(
    runs: Sequence[Opened],
    execution: Execution,
    state: TrainState,
    step: int,
    measured: Sequence[Scalars] | None,
    saves: bool,
    should_stop: ShouldStop | None,
) -> None:
    """Writes the validation metrics of each run, ends runs that should stop, and saves.

    Args:
        runs: the runs; those that are not alive are skipped.
        execution: executes these runs.
        state: the state of all runs.
        step: the step that was reached.
        measured: validation metrics of each run; None if there are none at this step.
        saves: whether to save all runs; runs that end here are saved in any case.
        should_stop: see `advance`.
    """
    total = runs[0].experiment.total_steps
    for index, run in enumerate(runs):
        if not run.alive:
            continue
        loss = None if measured is None else run.reporter.validated(step, measured[index])
        if loss is not None and should_stop is not None:
            run.alive = not should_stop(step, loss) or step == total
        if saves or not run.alive:
            run.save(execution.part(state, index), step, loss)


def complete(
    runs: Sequence[Opened], execution: Execution, state: TrainState, step: int, *, curves: bool
) -> None:
    """Validates and finishes each run as far as that is not done yet.

    Args:
        runs: the runs; those that are not alive are skipped.
        execution: executes these runs.
        state: the state of all runs after their last step.
        step: the step that was reached.
        curves: whether to draw loss curves.
    """
    take_back_signals()
    limit = runs[0].experiment.train.validation_batches
    alive = [(index, run) for index, run in enumerate(runs) if run.alive]
    lacking = [pair for pair in alive if not first_says(is_validated(pair[1].workdir, step, limit))]
    if lacking:
        # The runs were restored after their last step, but their line of metrics is missing.
        with execution.entered():
            measured = execution.last_validation(state.evaluated, limit, len(runs))
        for index, run in lacking:
            say = run.progress.say
            write_again(run.experiment, run.workdir, step, VALIDATION, measured[index], say)
    for index, run in alive:
        if not first_says(is_finished(run.workdir, step)):
            part, say = execution.part(state, index), run.progress.say
            finish(run.experiment, part, run.workdir, step, curves=curves, say=say)


def announce(run: Opened) -> None:
    """Prints the devices and settings of a run, and warnings about likely mistakes."""
    experiment, say = run.experiment, run.progress.say
    example = experiment.task.example_inputs(experiment.model)
    say(experiment.data.describe())
    say(f"Attention implementation: {experiment.model.chosen_attention(*example)}.")
    for warning in experiment.warnings():
        say(warning)
    if experiment.train.tensorboard and not tensorboard_is_installed():
        say(as_typed("No TensorBoard files: install them with pip install -e '.[tensorboard]'."))


def next_multiple(step: int, every: int) -> int:
    """The next multiple of `every` after `step`."""
    return (step // every + 1) * every
