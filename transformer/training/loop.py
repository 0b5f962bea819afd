"""The one training loop, for every task, from top to bottom."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from transformer import sharding
from transformer.files import filling
from transformer.nn.attention import require_platform
from transformer.training import experiment as experiments
from transformer.training.checkpoints import Checkpoints, Restored
from transformer.training.experiment import Experiment
from transformer.training.feeding import Feeder
from transformer.training.finishing import (
    VALIDATION,
    Validate,
    finish,
    is_finished,
    is_validated,
    last_validation,
    summary,
    write_again,
    write_curves,
)
from transformer.training.holding import holding
from transformer.training.initialization import initialized
from transformer.training.metrics import (
    MetricsWriter,
    Progress,
    tensorboard_is_installed,
)
from transformer.training.notes import Notes, newest_notes, require_config
from transformer.training.parameters import read_parameters
from transformer.training.processes import (
    StopRequest,
    first_does,
    first_says,
    is_first,
    meet,
    take_back_signals,
)
from transformer.training.programs import Programs, make_programs, placed_numbers, program_key
from transformer.training.reporting import Reporter
from transformer.training.saved_runs import adopt_workdir, write_config
from transformer.training.shared import Shared
from transformer.training.state import TrainState
from transformer.training.validation import make_validation


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
    # What is open is closed in any case, an error too.
    with contextlib.ExitStack() as held:
        # ---------------------------------------------------------------- setup
        held.enter_context(holding(workdir))
        config = adopt_workdir(config, workdir)
        experiment = experiments.prepare(config, workdir, shared=shared)
        options, total = experiment.train, experiment.total_steps
        require_platform(experiment.model.attention)
        about, notes = experiments.metadata_of(experiment, workdir), newest_notes(workdir)
        experiments.require_same_run(about, workdir, notes)
        meet("all have read the folder")
        first_does(lambda: write_beginning(experiment, workdir, notes))

        # ---------------------------------------------- new state, or restored
        checkpoints = held.enter_context(Checkpoints(workdir, keep_last=options.keep_last))
        progress = Progress(total, shown=is_first())
        restored = checkpoints.restore_newest(checkpoint_items(experiment.shapes), progress.say)
        shared = Shared() if shared is None else shared
        programs = shared.once(program_key(experiment.config), lambda: make_programs(experiment))
        state, position = begin(experiment, programs, restored, progress, about)
        step = int(state.step)
        if step >= total and first_says(is_finished(workdir, step)):
            progress.say(f"The run in {workdir} is finished: {step} of {total} steps are done.")
            return 0, summary(workdir, step, progress.say)
        if step >= total:
            progress.say(f"{step} of {total} steps are done; the end of {workdir} is made again.")
        elif restored is not None:
            progress.say(f"Resuming {workdir} from step {step}.")

        # ---------------------------------------------- the steps that are left
        numbers = placed_numbers(experiment)
        opened = Opened(
            experiment=experiment,
            about=about,
            workdir=workdir,
            checkpoints=checkpoints,
            progress=progress,
            steps=functools.partial(programs.steps, numbers=numbers),
            validate=make_validation(
                functools.partial(programs.evaluation_step, numbers),
                experiment.task.validation_batches(experiment.data),
                sharding.batch_sharding(experiment.mesh),
            ),
        )
        if step < total:
            state, code = advance(opened, state, position, enough)
            step = int(state.step)
            if code is not None:
                if curves and is_first():
                    write_curves(workdir)
                return code, summary(workdir, step)

        # ------------------------------------------------------------- the end
        take_back_signals()
        limit = options.validation_batches
        if not first_says(is_validated(workdir, step, limit)):
            with jax.set_mesh(experiment.mesh):
                measured = last_validation(opened.validate, state.evaluated, limit)
            write_again(experiment, workdir, step, VALIDATION, measured, progress.say)
        finish(experiment, state, workdir, step, curves=curves, say=progress.say)
        return 0, summary(workdir, step)


@dataclasses.dataclass(frozen=True)
class Opened:
    """A run that is about to train.

    Attributes:
        experiment: of the run.
        about: what its checkpoints say of it; from `experiment.metadata_of`.
        workdir: its folder, which is held.
        checkpoints: in it.
        progress: tells people.
        steps: of state, batches and their count; see `step.repeat`.
        validate: of parameters and a number of batches.
    """

    experiment: Experiment
    about: Mapping[str, Any]
    workdir: Path
    checkpoints: Checkpoints
    progress: Progress
    steps: Callable[[TrainState, Any, Any], tuple[TrainState, dict[str, Any]]]
    validate: Validate


def advance(
    run: Opened, state: TrainState, position: Any, enough: Callable[[int, float], bool] | None
) -> tuple[TrainState, int | None]:
    """Takes the steps that are left, measures and saves, until all are done or somebody stops it.

    Args:
        run: what takes them.
        state: to begin with; donated.
        position: in the data, or None.
        enough: see `train`.

    Returns:
        The state reached, which is saved, and None at the end of the run; before it the exit code:
        0 if it was enough, or 128 + signal.
    """
    experiment, checkpoints, progress = run.experiment, run.checkpoints, run.progress
    options, total = experiment.train, experiment.total_steps
    most, limit = options.steps_per_dispatch, options.validation_batches
    every = {name: experiment.steps(name) for name in ("log_every", "evaluate_every", "save_every")}
    step = int(state.step)
    tell_beginning(experiment, progress)
    with contextlib.ExitStack() as held:
        # ------------------------------------------------------ what goes in, and out
        feeder = Feeder(
            experiment.task.train_batches(experiment.data, seed=options.seed, num_steps=total),
            sharding.batch_sharding(experiment.mesh, leading_axes=1),
            most=most,
            position=position,
        )
        held.callback(feeder.close)
        tensorboard = options.tensorboard and tensorboard_is_installed()
        writer = MetricsWriter(
            run.workdir, step=step, tensorboard=tensorboard, say=progress.say, writes=is_first()
        )
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
            state, metrics = run.steps(state, batches, count)
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
                if step == total:
                    measured = last_validation(run.validate, state.evaluated, limit)
                else:
                    measured = run.validate(state.evaluated, limit)
                validation_loss = reporter.validated(step, measured)
                pruned = enough is not None and enough(step, validation_loss) and step < total
            if save or stopping or pruned:
                # What a checkpoint is of is on disk before it.
                writer.flush()
                checkpoints.save(
                    step,
                    checkpoint_items(state),
                    data=feeder.position,
                    metadata=run.about,
                    validation_loss=validation_loss,
                )
            if stopping or pruned:
                break
        checkpoints.wait()

    # ------------------------------------------------------------------ why it ended
    if stop.signal is not None:
        progress.say(f"Stopped at step {step} of {total}; the same command goes on from there.")
        return state, stop.exit_code
    if pruned:
        progress.say(f"Step {step} of {total} is enough of this run.")
        return state, 0
    return state, None


def write_beginning(experiment: Experiment, workdir: Path, notes: Notes | None) -> None:
    """Writes what other scripts need beside checkpoints.

    Args:
        experiment: of the run.
        workdir: its folder.
        notes: of a checkpoint; where there is one, files that are there stay as they are.
    """
    write_config(experiment.config, workdir)
    if notes is None:
        experiment.task.save(experiment.data, workdir)
    else:
        with filling(workdir, keep=True) as folder:
            experiment.task.save(experiment.data, folder)


def tell_beginning(experiment: Experiment, progress: Progress) -> None:
    """Says what is trained on, how, and what is hardly meant so."""
    example = experiment.task.example_inputs(experiment.model)
    attention = experiment.model.chosen_attention(*example)
    progress.say(experiment.task.describe(experiment.data))
    progress.say(f"Attention implementation: {attention}.")
    for warning in experiment.warnings():
        progress.say(warning)
    if experiment.train.tensorboard and not tensorboard_is_installed():
        progress.say("No TensorBoard files: install them with pip install -e '.[tensorboard]'.")


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
