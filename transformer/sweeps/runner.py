"""Trains the trials of a grid one after another, sharing them with other workers."""

import functools
import math
import time
import traceback
from collections.abc import Callable, Sequence

from transformer.errors import NonFiniteLossError, UserError
from transformer.files import write_text
from transformer.sweeps.folder import Folder
from transformer.sweeps.trials import Trial
from transformer.training.holding import HeldError
from transformer.training.loop import ShouldStop, train
from transformer.training.shared import Shared
from transformer.types import Json

Say = Callable[[str], None]
# Takes a trial; returns the command that trains it alone.
Command = Callable[[Trial], str]

# Seconds between two checks of trials that other workers train.
PATIENCE = 0.5


def run_grid(
    trials: Sequence[Trial], folder: Folder, shared: Shared, say: Say, command: Command
) -> int:
    """Trains the remaining trials; returns when all are over, including those of other workers.

    Args:
        trials: the trials of the grid.
        folder: the folder of the sweep.
        shared: data and programs that the trials share.
        say: prints messages.
        command: returns the command that trains a trial alone.

    Returns:
        0, or the exit code of a trial that was asked to stop; the other trials then wait for the
        next call.
    """
    # Messages about a trial that is tried repeatedly are printed once.
    say = functools.cache(say)
    left, waiting = list(trials), False
    while left:
        busy = []
        for trial in left:
            with folder.claim(trial.id) as mine:
                if not mine:
                    busy.append(trial)
                elif not folder.is_over(trial.id):
                    say(f"trial {trials.index(trial) + 1} of {len(trials)}, {trial.id}: {trial}")
                    try:
                        code = run_trial(trial, folder, shared, say, command(trial))
                    except HeldError as error:
                        say(f"trial {trial.id}: {error}")
                        busy.append(trial)
                        continue
                    if code:
                        return code
        if len(busy) == len(left):
            if not waiting:
                say(f"Waiting for {len(left)} trials that other workers train.")
            waiting = True
            time.sleep(PATIENCE)
        left = busy
    return 0


def run_trial(
    trial: Trial,
    folder: Folder,
    shared: Shared,
    say: Say,
    command: str,
    should_stop: ShouldStop | None = None,
) -> int:
    """Trains one trial and notes its result; the caller holds its lock.

    Args:
        trial: the trial.
        folder: the folder of the sweep.
        shared: data and programs that the trials share.
        say: prints messages.
        command: the command that trains it alone.
        should_stop: whether to stop it for good; called after every validation.

    Returns:
        0 (even if it failed), or the exit code of a run that was asked to stop.

    Raises:
        HeldError: if another run trains it alone; its result is not known here.
    """
    started = time.monotonic()
    before = folder.status(trial.id) or {}
    pruned = False

    def ask(step: int, loss: float) -> bool:
        nonlocal pruned
        pruned = should_stop is not None and should_stop(step, loss)
        return pruned

    def seconds() -> float:
        return round(before.get("seconds", 0.0) + time.monotonic() - started, 2)

    workdir = folder.begin(trial, command)
    try:
        code, result = train(trial.config, workdir, shared=shared, should_stop=ask, curves=False)
    except HeldError:
        raise
    except Exception as error:
        failed(trial, folder, say, error, seconds=seconds())
        return 0
    status = "stopped" if code else "pruned" if pruned else "done"
    note_result(trial, folder, say, status, result, seconds())
    return code


def note_result(
    trial: Trial, folder: Folder, say: Say, status: str, result: Json, seconds: float
) -> None:
    """Notes the result of a trial; a trial whose loss is not finite always counts as failed.

    Args:
        trial: the trial.
        folder: the folder of the sweep.
        say: prints messages.
        status: `done`, `pruned` or `stopped`.
        result: the result of `training.loop.train`.
        seconds: how long it took.
    """
    facts = outcome(result)
    loss = facts["validation_loss"]
    if loss is None or math.isfinite(loss):
        folder.note(trial, status, seconds=seconds, error=None, **facts)
        return
    facts["validation_loss"] = None
    error = NonFiniteLossError(f"the validation loss of step {facts['step']} is {loss}")
    failed(trial, folder, say, error, seconds=seconds, **facts)


def failed(trial: Trial, folder: Folder, say: Say, error: Exception, **facts: object) -> None:
    """Notes that a trial failed; an unexpected error leaves its traceback in `error.txt`.

    Args:
        trial: the trial.
        folder: the folder of the sweep.
        say: prints messages.
        error: the reason.
        **facts: further notes; see `Folder.note`.
    """
    message = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    text = message if isinstance(error, UserError) else traceback.format_exc()
    write_text(folder.run(trial.id) / "error.txt", text.rstrip() + "\n")
    folder.note(trial, "failed", error=message, **facts)
    say(f"trial {trial.id} failed: {message.splitlines()[0]}")


def outcome(result: Json) -> Json:
    """The notes about a run: its step, its last validation loss and its scores."""
    final = result.get("final", {})
    return {
        "step": result["step"],
        "validation_loss": result.get("validation", {}).get("loss"),
        "scores": {name: value for name, value in final.items() if name != "step"} or None,
    }
