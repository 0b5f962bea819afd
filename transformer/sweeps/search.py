"""Random and Bayesian search with early stopping, by Optuna.

Several processes share one study. The same locks as in a grid say which process trains which trial:
if Optuna believes a trial to be running but nobody holds its lock, it was cut off, and the next
free worker resumes it.
"""

import contextlib
import dataclasses
import functools
import hashlib
import math
import re
import socket
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from ml_collections import ConfigDict

from transformer.errors import ConfigError, MissingDependencyError, UserError, WorkdirError
from transformer.sweeps.folder import Folder
from transformer.sweeps.runner import PATIENCE, Command, Say, failed, run_trial
from transformer.sweeps.trials import (
    Trial,
    check_trials,
    checked_value,
    make_trial,
    parsed_value,
    require_field,
)
from transformer.training.experiment import prepare
from transformer.training.holding import HeldError
from transformer.training.shared import Shared

if TYPE_CHECKING:
    import optuna

SAMPLERS = ("tpe", "random")
PRUNERS = ("hyperband", "none")
JOURNAL = "study.journal"
# The lock held while asking for the next trial, by one worker at a time.
_ASKING = "study"
_SPACE = re.compile(r"(?P<key>[\w.]+)=(?P<kind>log|uniform|choice)\((?P<values>.*)\)")


@dataclasses.dataclass(frozen=True)
class Dimension:
    """The search range of one key.

    Attributes:
        key: the config key.
        kind: `log`, `uniform` or `choice`.
        values: the bounds, or the choices.
    """

    key: str
    kind: str
    values: tuple[object, ...]

    def suggest(self, trial: "optuna.Trial") -> object:
        """Lets an Optuna trial suggest a value."""
        if self.kind == "choice":
            return trial.suggest_categorical(self.key, self.values)
        low, high = self.values
        suggest = trial.suggest_int if type(low) is int else trial.suggest_float
        return suggest(self.key, low, high, log=self.kind == "log")


@dataclasses.dataclass(frozen=True)
class Search:
    """Options of a search.

    Attributes:
        trials: number of trials of the whole study, over all workers.
        space: the search space.
        sampler: `tpe` (Bergstra et al. 2011) or `random`.
        pruner: `hyperband` (Li et al. 2018) stops trials that fall behind; or `none`.
        storage: URL of Optuna's storage; empty for a journal in the folder of the sweep.
        seed: seed of the sampler; the suggestions of a single worker depend on nothing else.
    """

    trials: int
    space: Sequence[Dimension]
    sampler: str = "tpe"
    pruner: str = "hyperband"
    storage: str = ""
    seed: int = 0


def parsed_space(config: ConfigDict, texts: Iterable[str]) -> list[Dimension]:
    """Parses dimensions: `KEY=log(LOW,HIGH)`, `KEY=uniform(LOW,HIGH)`, `KEY=choice(A,B,...)`.

    Raises:
        ConfigError: if one has another form, or a value does not fit its key.
    """
    dimensions = []
    for text in texts:
        match = _SPACE.fullmatch(text.strip().removeprefix("config."))
        if match is None:
            raise ConfigError(
                f"--space={text}: write KEY=log(LOW,HIGH), KEY=uniform(LOW,HIGH) or "
                f"KEY=choice(A,B,...), such as --space='optimizer.learning_rate=log(1e-4,1e-2)'"
            )
        key, kind = match["key"], match["kind"]
        values = tuple(parsed_value(config, key, x) for x in match["values"].split(","))
        if kind != "choice":
            numbers = require_field(config, key).base in (int, float)
            if not numbers or len(values) != 2 or None in values or not values[0] < values[1]:
                raise ConfigError(f"--space={text}: give a lower and a higher number.")
            if kind == "log" and values[0] <= 0:
                raise ConfigError(f"--space={text}: a logarithm needs numbers above 0.")
        if any(key == dimension.key for dimension in dimensions):
            raise ConfigError(f"--space gives {key} twice: leave one out.")
        dimensions.append(Dimension(key, kind, values))
    if not dimensions:
        raise ConfigError(
            "what is to be searched? Give --space='optimizer.learning_rate=log(1e-4,1e-2)'"
        )
    return dimensions


def check_space(config: ConfigDict, space: Sequence[Dimension], shared: Shared) -> None:
    """Checks the bounds and choices of every dimension before the first trial.

    Raises:
        UserError: names the value.
    """
    for dimension in space:
        for value in dimension.values:
            overrides = {dimension.key: checked_value(config, dimension.key, value)}
            check_trials([make_trial(config, overrides)], shared)


def run_search(
    config: ConfigDict, search: Search, folder: Folder, shared: Shared, say: Say, command: Command
) -> int:
    """Trains trials until the study has enough; returns when all of them are over.

    Args:
        config: the config without overrides.
        search: the options of the search.
        folder: the folder of the sweep.
        shared: data and programs that the trials share.
        say: prints messages.
        command: returns the command that trains a trial alone.

    Returns:
        0, or the exit code of a trial that was asked to stop.

    Raises:
        MissingDependencyError: if Optuna is not installed.
    """
    optuna = imported_optuna()
    base = prepare(config, shared=shared)
    first = base.steps("evaluate_every")
    if search.pruner == "hyperband" and first >= base.total_steps:
        say("Nothing is stopped early: config.train.evaluate_every measures at the end only.")
    with folder.claim(_ASKING, wait=True):
        storage = open_storage(optuna, folder.path, search.storage)
        study = _study(optuna, search, storage, folder, first, base.total_steps)
        ours = make_trial(config, {}).id
        if study.user_attrs.get("config", ours) != ours:
            raise WorkdirError(
                f"{folder.path} holds a search with another config: use another --workdir."
            )
        study.set_user_attr("config", ours)
    # Messages about a trial that is tried repeatedly are printed once.
    say = functools.cache(say)
    waiting = False
    while True:
        with folder.claim(_ASKING, wait=True):
            found = _next_trial(optuna, study, storage, search, config, folder)
        if found is None:
            return 0
        if found == "busy":
            if not waiting:
                say("Waiting for trials that other workers train.")
            waiting = True
            time.sleep(PATIENCE)
            continue
        asked, trial = found
        code = _run(optuna, study, asked, trial, folder, shared, say, command)
        if code:
            return code


def imported_optuna() -> ModuleType:
    """Imports Optuna and silences messages below warnings.

    Raises:
        MissingDependencyError: if it is not installed.
    """
    try:
        import optuna
    except ModuleNotFoundError:
        raise MissingDependencyError("optuna", "sweep", "--search=optuna") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def open_storage(
    optuna: ModuleType, folder: Path, storage: str = ""
) -> "optuna.storages.BaseStorage":
    """Opens the storage of a sweep's study: a database by its URL, or a journal in the folder.

    Raises:
        WorkdirError: if it cannot be opened.
    """
    with _opening(storage or folder / JOURNAL):
        if storage:
            return optuna.storages.RDBStorage(storage)
        backend = optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL))
        return optuna.storages.JournalStorage(backend)


def open_study(
    optuna: ModuleType, folder: Path, storage: "optuna.storages.BaseStorage", **options: object
) -> "optuna.Study":
    """Opens the study of a sweep's folder, creating it if necessary.

    Args:
        optuna: the library.
        folder: the folder of the sweep.
        storage: the result of `open_storage`.
        **options: options of a new study.

    Raises:
        WorkdirError: if it cannot be opened.
    """
    # Each folder has its own study, so that several sweeps may use one database.
    journal = isinstance(storage, optuna.storages.JournalStorage)
    name = "sweep" if journal else folder.absolute().name
    with _opening(name):
        return optuna.create_study(study_name=name, storage=storage, load_if_exists=True, **options)


@contextlib.contextmanager
def _opening(what: str | Path) -> Iterator[None]:
    """Inside `with`, turns the different errors of all storages into a WorkdirError."""
    try:
        yield
    except Exception as error:
        message = str(error).strip().splitlines()[0]
        raise WorkdirError(f"the study in {what} cannot be opened: {message}") from error


def _study(
    optuna: ModuleType,
    search: Search,
    storage: "optuna.storages.BaseStorage",
    folder: Folder,
    first: int,
    total: int,
) -> "optuna.Study":
    pruner = optuna.pruners.NopPruner()
    if search.pruner == "hyperband":
        pruner = optuna.pruners.HyperbandPruner(
            min_resource=first, max_resource=max(first, total), reduction_factor=3
        )
    return open_study(optuna, folder.path, storage, direction="minimize", pruner=pruner)


def _sampler(optuna: ModuleType, search: Search, number: int) -> "optuna.samplers.BaseSampler":
    """A sampler for the trial of this number.

    Each trial has its own sampler; otherwise workers with equal seeds would start with equal
    suggestions.
    """
    digest = hashlib.sha256(f"{search.seed} {number}".encode()).digest()
    seed = int.from_bytes(digest[:4], "little")
    if search.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # Running trials count as bad ones, so that workers do not all try the same region.
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)


def _next_trial(
    optuna: ModuleType,
    study: "optuna.Study",
    storage: "optuna.storages.BaseStorage",
    search: Search,
    config: ConfigDict,
    folder: Folder,
) -> "tuple[optuna.Trial, Trial] | str | None":
    """Chooses the next trial; called by one worker at a time.

    Returns:
        An Optuna trial and ours, `busy` if other workers train the last ones, None if all are over.
    """
    state = optuna.trial.TrialState
    known = study.get_trials(deepcopy=False)
    running = [t for t in known if t.state == state.RUNNING and _is_here(t, folder)]
    for cut_off in running:
        if folder.is_free(cut_off.user_attrs["id"]):
            known_as = storage.get_study_id_from_name(study.study_name)
            number = storage.get_trial_id_from_study_id_trial_number(known_as, cut_off.number)
            return optuna.trial.Trial(study, number), make_trial(config, cut_off.params)
    counted = [t for t in known if t.state.is_finished() or "id" in t.user_attrs]
    if len(counted) >= search.trials:
        return "busy" if running else None
    study.sampler = _sampler(optuna, search, len(known))
    asked = study.ask()
    overrides = {dimension.key: dimension.suggest(asked) for dimension in search.space}
    trial = make_trial(config, overrides)
    asked.set_user_attr("host", socket.gethostname())
    asked.set_user_attr("id", trial.id)
    return asked, trial


def _is_here(frozen: "optuna.trial.FrozenTrial", folder: Folder) -> bool:
    """Whether a trial is trained in this folder, not on another host with its own disk."""
    attributes = frozen.user_attrs
    return "id" in attributes and (
        attributes.get("host") == socket.gethostname()
        or (folder.path / "locks" / attributes["id"]).exists()
    )


def _run(
    optuna: ModuleType,
    study: "optuna.Study",
    asked: "optuna.Trial",
    trial: Trial,
    folder: Folder,
    shared: Shared,
    say: Say,
    command: Command,
) -> int:
    """Trains a trial, reports its result to the study, and returns 0 or an exit code."""
    state = optuna.trial.TrialState
    with folder.claim(trial.id) as mine:
        if not mine:
            return 0  # Another worker has already resumed it.

        def should_stop(step: int, loss: float) -> bool:
            reported = study.get_trials(deepcopy=False)[asked.number].intermediate_values
            if step not in reported and math.isfinite(loss):
                asked.report(loss, step)
            return asked.should_prune()

        if not folder.is_over(trial.id):
            say(f"trial {asked.number + 1}, {trial.id}: {trial}")
            try:
                check_trials([trial], shared)
            except UserError as error:
                folder.begin(trial, command(trial))
                failed(trial, folder, say, error)
            else:
                try:
                    code = run_trial(trial, folder, shared, say, command(trial), should_stop)
                except HeldError as error:
                    # Leave it running in the study until the run that trains it alone has ended.
                    say(f"trial {asked.number + 1}, {trial.id}: {error}")
                    time.sleep(PATIENCE)
                    return 0
                if code:
                    return code  # Stays running in the study; the next worker resumes it.
        # An earlier trial had the same values; report its result again.
        status = folder.status(trial.id) or {}
        loss = status.get("validation_loss")
        kinds = {"done": state.COMPLETE, "pruned": state.PRUNED, "failed": state.FAIL}
        kind = kinds[status["status"]]
        if kind == state.COMPLETE and (loss is None or not math.isfinite(loss)):
            kind = state.FAIL
        value = loss if kind == state.COMPLETE else None
        study.tell(asked.number, value, state=kind, skip_if_finished=True)
    return 0
