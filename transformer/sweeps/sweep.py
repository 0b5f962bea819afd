"""Runs a sweep from its options to its report, for `scripts/sweep.py`."""

import dataclasses
import importlib.util
import shlex
import signal
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

import jax
from ml_collections import ConfigDict

from transformer.checks import require_plain_path, require_writable_folder, whole_number
from transformer.errors import ConfigError, UserError, WorkdirError
from transformer.fields import unknown_name
from transformer.sweeps import report
from transformer.sweeps.algebra import Overrides, product
from transformer.sweeps.folder import Folder
from transformer.sweeps.population import run_population
from transformer.sweeps.runner import Say, run_grid
from transformer.sweeps.search import (
    JOURNAL,
    PRUNERS,
    SAMPLERS,
    Search,
    check_space,
    imported_optuna,
    open_storage,
    open_study,
    parsed_space,
    run_search,
)
from transformer.sweeps.trials import Plan, Trial, check_trials, make_trials, parsed_grid
from transformer.training.shared import Shared
from transformer.types import Json

VECTORIZE = ("auto", "none", "scan", "vmap", "processes")
# Models of at most this many parameters cannot keep an accelerator busy alone.
_SMALL = 50_000_000
# Signals besides SIGINT that a terminal sends; workers are not in its process group.
_OF_TERMINALS = tuple(
    getattr(signal, name) for name in ("SIGHUP", "SIGQUIT") if hasattr(signal, name)
)


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of a sweep: the flags of `scripts/sweep.py` besides the config.

    Attributes:
        sweeps: names of the config file's sweeps; their product is taken.
        grids: further sweeps, each `KEY=VALUE,VALUE,...`.
        search: `optuna`, or empty for the whole grid.
        trials: number of trials of a search.
        space: search space; see `search.parsed_space`.
        sampler: sampler of a search.
        pruner: pruner of a search.
        storage: storage of a search.
        seed: seed of a search.
        vectorize: how trials share the machine: `none` is one after another with one compiled
            program, `scan` and `vmap` put many into one program, `processes` starts workers,
            `auto` chooses.
        population: the maximum number of trials in one program.
        workers: number of workers of `processes`.
        shard: `I/N`, the part of a grid to train here; empty for all of it.
        retry_failed: trains failed trials again.
    """

    sweeps: Sequence[str] = ()
    grids: Sequence[str] = ()
    search: str = ""
    trials: int = 20
    space: Sequence[str] = ()
    sampler: str = "tpe"
    pruner: str = "hyperband"
    storage: str = ""
    seed: int = 0
    vectorize: str = "auto"
    population: int = 16
    workers: int = 2
    shard: str = ""
    retry_failed: bool = False

    def check(self) -> None:
        """Refuses values that cannot work.

        Raises:
            ConfigError: names the flag.
        """
        for name, known in (("sampler", SAMPLERS), ("pruner", PRUNERS), ("vectorize", VECTORIZE)):
            if getattr(self, name) not in known:
                raise ConfigError(unknown_name(f"--{name}", getattr(self, name), known))
        if self.search not in ("", "optuna"):
            raise ConfigError(f"--search={self.search}: there is optuna.")
        if self.search and (self.sweeps or self.grids or self.shard):
            raise ConfigError("--search does not go with --sweep, --grid and --shard.")
        if self.search and self.vectorize in ("scan", "vmap"):
            raise ConfigError(
                f"--vectorize={self.vectorize} is for grids: a search learns from trial to trial."
            )
        if not self.search and not (self.sweeps or self.grids):
            raise ConfigError(
                "what is to be swept? Give --sweep=NAME of the config file, "
                "--grid=KEY=VALUE,VALUE,... or --search=optuna with --space=..."
            )
        for name in ("space", "storage"):
            if getattr(self, name) and not self.search:
                raise ConfigError(f"--{name} is for --search=optuna.")


def run_sweep(
    config: ConfigDict,
    source: Path,
    workdir: Path,
    options: Options,
    command: Sequence[str],
    say: Say,
) -> int:
    """Trains all trials of a sweep; returns 0, or the exit code if asked to stop.

    Args:
        config: the config that all trials share.
        source: the config file, which defines sweeps.
        workdir: the folder of the sweep.
        options: which trials to train, and how.
        command: the command that trains the config alone, without overrides and folder.
        say: prints messages.

    Raises:
        UserError: for anything the user can fix, before the first trial begins.
    """
    folder, shared = Folder(workdir), Shared()

    def alone(trial: Trial) -> str:
        # No flag can express None.
        flags = [f"--config.{k}={v}" for k, v in trial.overrides.items() if v is not None]
        return shlex.join([*command, *flags, f"--workdir={workdir}-{trial.id}"])

    checked = check_sweep(config, source, folder, options, shared)
    if isinstance(checked, Search):
        return run_search(config, checked, folder, shared, say, alone)
    trials, plans = checked
    vectorize = chosen(options.vectorize, plans)
    say(f"{len(trials)} trials, {len({plan.program for plan in plans})} programs, {vectorize}.")
    if vectorize in ("scan", "vmap"):
        return run_population(
            trials,
            plans,
            folder,
            shared,
            say,
            alone,
            vectorize=vectorize,
            limit=options.population,
        )
    return run_grid(trials, folder, shared, say, alone)


def check_sweep(
    config: ConfigDict, source: Path, folder: Folder, options: Options, shared: Shared
) -> Search | tuple[list[Trial], list[Plan]]:
    """Checks a sweep, creates its folder and, if requested, forgets failures.

    Returns:
        The search, or the trials of a grid and their plans.

    Raises:
        UserError: for anything the user can fix.
    """
    if options.search:
        search = _search(config, options)
        imported_optuna()
        check_space(config, search.space, shared)
        _make(folder)
        return search
    trials = grid_trials(config, source, options)
    together = options.vectorize in ("scan", "vmap") or jax.default_backend() != "cpu"
    plans = check_trials(trials, shared, jax.devices()[:1] if together else None)
    _make(folder)
    if options.retry_failed:
        for trial in trials:
            if (folder.status(trial.id) or {}).get("status") == "failed":
                folder.note(trial, "stopped")
    return trials, plans


def grid_trials(config: ConfigDict, source: Path, options: Options) -> list[Trial]:
    """The trials of this shard of a grid.

    Raises:
        ConfigError: if they cannot be created.
    """
    sweeps = [named_sweep(source, name) for name in options.sweeps]
    trials = make_trials(config, product(*sweeps, *parsed_grid(config, options.grids)))
    if not options.shard:
        return trials
    index, count = (whole_number(part) for part in options.shard.partition("/")[::2])
    if index is None or count is None or index >= count:
        raise ConfigError(f"--shard={options.shard}: write I/N with I from 0 to N-1, such as 0/4.")
    return trials[index::count]


def named_sweep(source: Path, name: str) -> list[Overrides]:
    """The overrides that `sweep_NAME` of a config file yields.

    Raises:
        ConfigError: if the file has no such function.
    """
    spec = importlib.util.spec_from_file_location("swept_config", source)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{source} is no Python file: the name of a config ends with .py.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    known = [key.removeprefix("sweep_") for key in vars(module) if key.startswith("sweep_")]
    if name not in known:
        if not known:
            raise ConfigError(
                f"{source} has no sweeps: write a function sweep_{name} that yields overrides, "
                f"or use --grid."
            )
        raise ConfigError(unknown_name(f"{source}: --sweep", name, known))
    return list(getattr(module, f"sweep_{name}")())


def chosen(vectorize: str, plans: Sequence[Plan]) -> str:
    """Resolves `auto`: `none` on CPUs, where many trials at once are not faster.

    On accelerators, small models train together if memory holds their states many times over.
    """
    if vectorize != "auto":
        return vectorize
    device = jax.local_devices()[0]
    if device.platform == "cpu" or len(plans) == 1:
        return "none"
    room = (device.memory_stats() or {}).get("bytes_limit", 0)
    small = all(plan.size[1] <= _SMALL for plan in plans)
    # Activations need at least as much memory again.
    return "vmap" if small and 8 * sum(plan.size[0] for plan in plans) < room else "none"


def plan(config: ConfigDict, source: Path, options: Options) -> Json:
    """Checks and describes the trials of a grid, without writing anything.

    Returns:
        `trials`, each with `id`, `overrides` and `total_steps`, and the number of `programs` to
        compile for them.
    """
    if options.search:
        raise ConfigError(
            "--dry_run lists a grid; the trials of a search are not known in advance."
        )
    trials = grid_trials(config, source, options)
    plans = check_trials(trials, Shared())
    return {
        "trials": [
            {"id": trial.id, "overrides": trial.overrides, "total_steps": plan.total_steps}
            for trial, plan in zip(trials, plans, strict=True)
        ],
        "programs": len({plan.program for plan in plans}),
    }


def in_processes(arguments: Sequence[str], workers: int) -> int:
    """Runs workers of a sweep, each in its own process, and waits for all.

    Args:
        arguments: the command line of one worker.
        workers: number of workers.

    Returns:
        The highest exit code, and at least that of a signal. Terminating signals are forwarded.
    """
    running: list[subprocess.Popen] = []
    asked: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        for process in running:
            process.send_signal(number)

    numbers = (signal.SIGTERM, signal.SIGINT, *_OF_TERMINALS)
    before = {number: signal.signal(number, pass_on) for number in numbers}
    try:
        for _ in range(workers):
            if not asked:
                # Each worker has its own process group: otherwise it would get Ctrl-C twice, from
                # the terminal and from us, and would end at once instead of saving.
                line = [sys.executable, *arguments]
                running.append(subprocess.Popen(line, process_group=0))
                if asked:
                    # The signal came while this worker started.
                    running[-1].send_signal(asked[-1])
        codes = [process.wait() for process in running]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    ends = [128 - code if code < 0 else code for code in codes]
    return max([*ends, *(128 + number for number in asked[:1])], default=0)


def finish(workdir: Path, storage: str = "") -> Json:
    """Collects the results so far and writes the report.

    Returns:
        `trials`, `best`, `failed`, and the path of the `report`.

    Raises:
        WorkdirError: if there are no trials in the folder.
    """
    folder = Folder(workdir)
    if not report.collect(folder):
        raise WorkdirError(f"{workdir} holds no trials: it is not the folder of a sweep.")
    # Workers of one sweep may finish at the same time.
    with folder.claim("report", wait=True):
        rows = report.collect(folder)
        page = report.write_report(folder, rows, _importance(workdir, storage))
    return {
        "workdir": str(workdir),
        "trials": rows,
        "best": report.best_of(rows),
        "failed": sum(row["status"] == "failed" for row in rows),
        "report": str(page),
    }


def _search(config: ConfigDict, options: Options) -> Search:
    return Search(
        trials=options.trials,
        space=parsed_space(config, options.space),
        sampler=options.sampler,
        pruner=options.pruner,
        storage=options.storage,
        seed=options.seed,
    )


def _importance(workdir: Path, storage: str) -> Mapping[str, float] | None:
    """The importance of each key, measured by Optuna; None if it cannot be measured."""
    if not storage and not (workdir / JOURNAL).exists():
        return None
    try:
        optuna = imported_optuna()
        study = open_study(optuna, workdir, open_storage(optuna, workdir, storage))
        with warnings.catch_warnings():
            # It warns that it is experimental.
            warnings.simplefilter("ignore")
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            return optuna.importance.get_param_importances(study, evaluator=evaluator)
    except (UserError, ValueError, RuntimeError):
        # Optuna is not installed, or there are too few trials, or all are equal.
        return None


def _make(folder: Folder) -> None:
    """Creates the folder of a sweep.

    Raises:
        WorkdirError: if the folder belongs to something else.
    """
    path = folder.path
    require_plain_path(path)
    require_writable_folder(path)
    if path.exists() and any(path.iterdir()) and not (path / "trials").is_dir():
        raise WorkdirError(f"{path} is not the folder of a sweep: use another --workdir.")
    (path / "trials").mkdir(parents=True, exist_ok=True)
