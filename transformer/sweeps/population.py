"""Trains many trials at once: one program advances all of them together.

It uses the loop of `training.loop`. A trial's folder has the same content as when it is trained
alone, so either way of training can resume the other.
"""

import contextlib
import functools
import time
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

import jax

from transformer.errors import ConfigError
from transformer.sweeps.folder import Folder
from transformer.sweeps.runner import PATIENCE, Command, Say, failed, note_result
from transformer.sweeps.trials import Plan, Trial
from transformer.sweeps.vectorized import together
from transformer.training.finishing import summary
from transformer.training.holding import HeldError
from transformer.training.loop import advance, complete
from transformer.training.metrics import Progress
from transformer.training.opened import Opened, open_run
from transformer.training.options import CHANGEABLE
from transformer.training.shared import Shared
from transformer.training.state import TrainState


class Members(NamedTuple):
    """Trials at the same step, with their runs and initial states."""

    trials: list[Trial]
    runs: list[Opened]
    states: list[TrainState]


def run_population(
    trials: Sequence[Trial],
    plans: Sequence[Plan],
    folder: Folder,
    shared: Shared,
    say: Say,
    command: Command,
    *,
    vectorize: str,
    limit: int,
) -> int:
    """Like `runner.run_grid`, but trains many trials at once.

    Args:
        trials: the trials of the grid.
        plans: the plan of each trial.
        folder: the folder of the sweep.
        shared: data and programs that the trials share.
        say: prints messages.
        command: returns the command that trains a trial alone.
        vectorize: `scan` or `vmap`.
        limit: the maximum number of trials at once.
    """
    plan_of = dict(zip((trial.id for trial in trials), plans, strict=True))
    # Messages about a trial that is tried repeatedly are printed once.
    say = functools.cache(say)
    left = list(trials)
    while left:
        busy: list[Trial] = []
        for group in _groups(left, plan_of, limit):
            with contextlib.ExitStack() as claims:
                mine = []
                for trial in group:
                    if not claims.enter_context(folder.claim(trial.id)):
                        busy.append(trial)
                    elif not folder.is_over(trial.id):
                        mine.append(trial)
                code, held = _run_group(mine, folder, shared, say, command, vectorize)
                busy += held
                if code:
                    return code
        if len(busy) == len(left):
            time.sleep(PATIENCE)
        left = busy
    return 0


def _groups(
    trials: Iterable[Trial], plan_of: dict[str, Plan], limit: int
) -> Iterable[Sequence[Trial]]:
    """Groups trials that one program can advance together."""
    groups: dict[Hashable, list[Trial]] = {}
    for trial in trials:
        plan, config = plan_of[trial.id], trial.config.to_dict()
        pace = tuple(config["train"][field] for field in CHANGEABLE if field != "duration")
        groups.setdefault((plan.program, plan.total_steps, pace), []).append(trial)
    for group in groups.values():
        for start in range(0, len(group), limit):
            yield group[start : start + limit]


def _run_group(
    trials: Sequence[Trial],
    folder: Folder,
    shared: Shared,
    say: Say,
    command: Command,
    vectorize: str,
) -> tuple[int, list[Trial]]:
    """Trains trials of one program; returns 0 or an exit code, and trials held by other runs."""
    with contextlib.ExitStack() as opened:
        # Trials that were stopped at different steps resume separately.
        at_step, held = _opened(trials, folder, shared, say, command, opened)
        for step, members in sorted(at_step.items()):
            say(f"{len(members.trials)} trials from step {step}, by {vectorize}:")
            for trial in members.trials:
                say(f"  {trial.id}: {trial}")
            code = _run_members(members, folder, shared, say, vectorize)
            if code:
                return code, held
    return 0, held


def _opened(
    trials: Sequence[Trial],
    folder: Folder,
    shared: Shared,
    say: Say,
    command: Command,
    opened: contextlib.ExitStack,
) -> tuple[dict[int, Members], list[Trial]]:
    """Opens trials; returns those that can be trained, by step, and those held by other runs.

    Leaving `opened` closes them.
    """
    at_step: dict[int, Members] = {}
    held: list[Trial] = []
    for trial in trials:
        try:
            workdir, device = folder.begin(trial, command(trial)), jax.devices()[:1]
            run, state = open_run(trial.config, workdir, shared=shared, devices=device, say=say)
        except HeldError as error:
            say(f"trial {trial.id}: {error}")
            held.append(trial)
        except Exception as error:
            failed(trial, folder, say, error)
        else:
            opened.callback(run.close)
            members = at_step.setdefault(run.step, Members([], [], []))
            members.trials.append(trial)
            members.runs.append(run)
            members.states.append(state)
    return at_step, held


def _run_members(members: Members, folder: Folder, shared: Shared, say: Say, vectorize: str) -> int:
    """Trains opened trials together and notes their results; returns 0 or an exit code."""
    started = time.monotonic()
    trials, runs, states = members
    trial_of = {run.workdir: trial for trial, run in zip(trials, runs, strict=True)}

    def note_failure(run: Opened, error: Exception) -> None:
        failed(trial_of[run.workdir], folder, say, error)

    step, total, code = runs[0].step, runs[0].experiment.total_steps, 0
    try:
        execution = together(runs, vectorize, shared)
        state = execution.gather(states)
        states.clear()  # They were copied; free their memory.
        if step < total:
            progress = Progress(total)
            state, step, code = advance(runs, execution, state, progress, on_failure=note_failure)
        if not code:
            complete(runs, execution, state, step, curves=False)
    except ConfigError:
        raise
    except Exception as error:
        for run in runs:
            if run.alive:
                note_failure(run, error)
        return 0
    finally:
        with contextlib.ExitStack() as closing:
            for run in runs:
                closing.callback(run.close)
    seconds = round((time.monotonic() - started) / len(runs), 2)
    for trial, run in zip(trials, runs, strict=True):
        if run.alive:
            status = "stopped" if code else "done"
            note_result(trial, folder, say, status, summary(run.workdir, step), seconds)
    return code
