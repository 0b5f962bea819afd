"""A run whose folder is locked: its experiment, its state, and the files open in training."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from transformer.files import filling, scratch
from transformer.tasks.parts.models import Refits
from transformer.tasks.parts.tokenizers import require_same_tokenizer
from transformer.training.checkpoints import Checkpoints, Restored
from transformer.training.experiment import Experiment, prepare
from transformer.training.feeding import Feeder, of_this_host
from transformer.training.holding import holding
from transformer.training.initialization import initialized
from transformer.training.metrics import (
    MetricsWriter,
    Progress,
    Say,
    tensorboard_is_installed,
)
from transformer.training.notes import (
    Notes,
    described,
    newest_notes,
    require_config,
    require_same_data,
    require_same_run,
)
from transformer.training.parameters import read_parameters
from transformer.training.precision import widened, with_dtypes_of
from transformer.training.processes import barrier, first_does, is_first
from transformer.training.programs import Programs, make_programs, program_key
from transformer.training.reporting import Reporter
from transformer.training.saved_runs import adopt_workdir, write_config
from transformer.training.shared import Shared
from transformer.training.state import TrainState
from transformer.types import Facts, Json, Params


@dataclasses.dataclass
class Opened:
    """A run that is training or about to train.

    Attributes:
        experiment: the experiment of the run.
        workdir: its folder, which is locked.
        about: the metadata that its checkpoints store; from `metadata_of`.
        checkpoints: the checkpoints in the folder.
        programs: the programs of the experiment.
        step: the step at which it begins.
        position: the saved position in the data at this step; None at the first step.
        progress: shows messages and progress.
        say: prints messages that people must always see.
        held: closes everything that is open.
        alive: whether it goes on: its losses are finite and it was not stopped early.
    """

    experiment: Experiment
    workdir: Path
    about: Facts
    checkpoints: Checkpoints
    programs: Programs
    step: int
    position: Facts | None
    progress: Progress
    say: Say
    held: contextlib.ExitStack
    alive: bool = True
    # Set while it trains; see `started`.
    feeder: Feeder = dataclasses.field(init=False)
    writer: MetricsWriter = dataclasses.field(init=False)
    reporter: Reporter = dataclasses.field(init=False)

    @contextlib.contextmanager
    def started(self) -> Iterator[None]:
        """Keeps `feeder`, `writer` and `reporter` open inside `with`."""
        experiment, options = self.experiment, self.experiment.train
        with contextlib.ExitStack() as held:
            batches = experiment.data.train_batches(
                seed=options.seed, num_steps=experiment.total_steps
            )
            self.feeder = Feeder(
                of_this_host(batches, experiment.mesh),
                limit=options.steps_per_dispatch,
                position=self.position,
            )
            held.callback(self.feeder.close)
            self.writer = MetricsWriter(
                self.workdir,
                step=self.step,
                tensorboard=options.tensorboard and tensorboard_is_installed(),
                say=self.say,
                writes=is_first(),
            )
            held.callback(self.writer.close)
            log_every = experiment.steps("log_every")
            self.reporter = Reporter(experiment, self.writer, self.progress, log_every)
            yield

    def save(self, state: TrainState, step: int, validation_loss: float | None) -> None:
        """Saves a checkpoint after flushing the metrics up to its step to disk."""
        self.writer.flush()
        self.checkpoints.save(
            step,
            checkpoint_items(state),
            data=self.feeder.position,
            metadata=self.about,
            validation_loss=validation_loss,
        )

    def close(self) -> None:
        """Closes all files and releases the folder."""
        self.held.close()


def open_run(
    config: ConfigDict,
    workdir: Path,
    *,
    shared: Shared,
    devices: Sequence[jax.Device] | None = None,
    say: Say | None = None,
) -> tuple[Opened, TrainState]:
    """Opens a run folder to start or resume training. The caller closes the result.

    Args:
        config: the config of the experiment.
        workdir: the run folder; made if it does not exist.
        shared: data and programs that runs of this process share.
        devices: the devices of the run; None for all.
        say: prints messages that people must always see; None shows all messages of the run.

    Returns:
        The run and the state at which it begins.

    Raises:
        HeldError: if another process trains there.
        UserError: for anything the user can fix.
    """
    with contextlib.ExitStack() as held:
        held.enter_context(holding(workdir))
        config = adopt_workdir(config, workdir)
        experiment = prepare(config, workdir, devices=devices, shared=shared)
        experiment.model.compute.require_platform()
        about, notes = metadata_of(experiment, workdir), newest_notes(workdir)
        require_same_run(about, workdir, notes)
        barrier("all have read the folder")
        first_does(lambda: write_beginning(experiment, workdir, notes))

        progress = Progress(experiment.total_steps, shown=say is None and is_first())
        say = progress.say if say is None else say
        checkpoints = Checkpoints(workdir, keep_last=experiment.train.keep_last)
        held.enter_context(checkpoints)
        restored = checkpoints.restore_newest(checkpoint_items(experiment.shapes), say)
        key = ("programs", experiment.mesh.size, program_key(experiment.config))
        programs = shared.get_or_make(key, lambda: make_programs(experiment))
        if restored is None:
            state, position = initial_state(experiment, programs, progress.say), None
        else:
            state, position = restored_state(experiment, restored, about), restored.data
        run = Opened(
            experiment=experiment,
            workdir=workdir,
            about=about,
            checkpoints=checkpoints,
            programs=programs,
            step=int(state.step),
            position=position,
            progress=progress,
            say=say,
            # After an error before this line, `held` closes everything here.
            held=held.pop_all(),
        )
        return run, state


def metadata_of(experiment: Experiment, workdir: Path) -> Json:
    """The metadata that checkpoints store about their run: its data, config and task files.

    Args:
        experiment: the experiment of the run.
        workdir: its folder, where the task files are written temporarily.
    """
    with scratch(workdir) as folder:
        experiment.data.save(folder)
        about = described(experiment.config, folder)
    return {"data_fingerprint": experiment.data.fingerprint(), **about}


def write_beginning(experiment: Experiment, workdir: Path, notes: Notes | None) -> None:
    """Writes the files other than checkpoints that other scripts need.

    Args:
        experiment: the experiment of the run.
        workdir: its folder.
        notes: the notes of a checkpoint; if there is one, existing files are not rewritten.
    """
    write_config(experiment.config, workdir)
    if notes is None:
        experiment.data.save(workdir)
    else:
        with filling(workdir, keep=True) as folder:
            experiment.data.save(folder)


def checkpoint_items(state: TrainState) -> dict[str, Params]:
    """The items of a checkpoint, each of which can be restored alone."""
    items = {
        "params": state.params,
        "training": {"step": state.step, "optimizer": state.optimizer, "key": state.key},
    }
    if state.average is not None:
        items["average"] = state.average
    return items


def restored_state(experiment: Experiment, restored: Restored, about: Facts) -> TrainState:
    """The train state of a checkpoint.

    Raises:
        WorkdirError: if the checkpoint belongs to another run than `about` describes.
    """
    notes = Notes(restored.step, restored.data, restored.metadata)
    require_config(experiment.config, notes, "the config of this run")
    require_same_data(about, notes)
    training = restored.state["training"]
    return TrainState(
        step=training["step"],
        params=restored.state["params"],
        optimizer=training["optimizer"],
        average=restored.state.get("average"),
        key=training["key"],
    )


def initial_state(experiment: Experiment, programs: Programs, say: Say) -> TrainState:
    """The state before the first step, with the parameters of the run that `config.init` names.

    Args:
        experiment: the experiment of the run.
        programs: the programs of the experiment.
        say: reports which parameters come from another run.

    Raises:
        WorkdirError: if the parameters of the other run do not fit.
    """
    state = programs.new_state(jax.random.key(experiment.train.seed))
    init = experiment.init
    if not init.workdir:
        return state
    source = Path(init.workdir)
    saved = read_parameters(source, init.checkpoint)
    require_same_tokenizer(experiment.task, source, saved.metadata["data_fingerprint"])
    params, report = initialized(
        widened(state.params),
        saved.params,
        init,
        experiment.model.refit if isinstance(experiment.model, Refits) else None,
        experiment.heads(),
    )
    say(report)
    average = None if state.average is None else jax.tree.map(jnp.copy, params)
    params = with_dtypes_of(params, state.params)
    return dataclasses.replace(state, params=params, average=average)
