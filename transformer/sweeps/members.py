"""Trials of a population: each opened as the loop opens a run."""

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from transformer.sweeps.runner import Say
from transformer.sweeps.trials import Trial
from transformer.training import experiment as experiments
from transformer.training.checkpoints import Checkpoints
from transformer.training.experiment import Experiment
from transformer.training.feeding import Feeder
from transformer.training.holding import holding
from transformer.training.loop import begin, checkpoint_items, write_beginning
from transformer.training.metrics import MetricsWriter, Progress
from transformer.training.notes import newest_notes
from transformer.training.programs import make_programs, program_key
from transformer.training.reporting import Reporter
from transformer.training.saved_runs import adopt_workdir
from transformer.training.shared import Shared
from transformer.training.state import TrainState


@dataclasses.dataclass
class Member:
    """A trial of a population, opened.

    Attributes:
        trial: which one.
        workdir: its run folder.
        experiment: on the first device.
        about: what its checkpoints say of it.
        checkpoints: of its run.
        state: where it begins; None once it is one of many.
        step: of this state.
        feeder: of its batches, on the host.
        writer: of its metrics.
        reporter: refuses its losses when they are not finite.
        held: what is open.
        alive: whether it goes on.
    """

    trial: Trial
    workdir: Path
    experiment: Experiment
    about: Mapping[str, Any]
    checkpoints: Checkpoints
    state: TrainState | None
    step: int
    feeder: Feeder
    writer: MetricsWriter
    reporter: Reporter
    held: contextlib.ExitStack
    alive: bool = True

    def close(self) -> None:
        """Writes out what is still in memory, and releases what is open even if that fails."""
        with self.held:
            self.checkpoints.wait()


def open_member(trial: Trial, workdir: Path, shared: Shared, say: Say) -> Member:
    """Opens a trial's folder and restores what is there, as the loop does.

    Raises:
        HeldError: if somebody trains it alone.
        UserError: for whatever the user can mend.
    """
    with contextlib.ExitStack() as held:
        held.enter_context(holding(workdir))
        config = adopt_workdir(trial.config, workdir)
        experiment = experiments.prepare(config, workdir, devices=jax.devices()[:1], shared=shared)
        about, notes = experiments.metadata_of(experiment, workdir), newest_notes(workdir)
        experiments.require_same_run(about, workdir, notes)
        write_beginning(experiment, workdir, notes)
        checkpoints = held.enter_context(Checkpoints(workdir, keep_last=experiment.train.keep_last))
        restored = checkpoints.restore_newest(checkpoint_items(experiment.shapes), say)
        key = ("on one device", program_key(experiment.config))
        programs = shared.once(key, lambda: make_programs(experiment))
        silent = Progress(experiment.total_steps, shown=False)
        state, position = begin(experiment, programs, restored, silent, about)
        batches = experiment.task.train_batches(
            experiment.data, seed=experiment.train.seed, num_steps=experiment.total_steps
        )
        writer = MetricsWriter(workdir, step=int(state.step), tensorboard=False, say=say)
        held.callback(writer.close)
        silent.start(int(state.step))
        feeder = Feeder(batches, None, most=experiment.train.steps_per_dispatch, position=position)
        held.callback(feeder.close)
        return Member(
            trial=trial,
            workdir=workdir,
            experiment=experiment,
            about=about,
            checkpoints=checkpoints,
            state=state,
            step=int(state.step),
            feeder=feeder,
            writer=writer,
            reporter=Reporter(experiment, writer, silent, experiment.steps("log_every")),
            # Whoever has the member closes it; what fails before this line is closed here.
            held=held.pop_all(),
        )
