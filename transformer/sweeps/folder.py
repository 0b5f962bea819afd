"""The folder of a sweep: its trials, their results, and which process trains which.

trials/ID/              the run folder of a trial
trials/ID/status.json   its overrides, status and result
locks/ID                held by the process that trains it
"""

import contextlib
import dataclasses
import functools
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

from transformer.errors import WorkdirError
from transformer.files import write_json
from transformer.locks import LockedError, NoLocksError, locked
from transformer.sweeps.trials import Trial
from transformer.training.finishing import VALIDATION
from transformer.training.metrics import read_metrics
from transformer.training.notes import CONFIG_FILE
from transformer.training.saved_runs import write_config
from transformer.types import Json

STATUS_FILE = "status.json"
# The statuses of trials that need no more training.
OVER = ("done", "pruned", "failed")


@dataclasses.dataclass(frozen=True)
class Folder:
    """The folder of a sweep.

    Attributes:
        path: its path.
    """

    path: Path

    def run(self, trial_id: str) -> Path:
        """The run folder of a trial."""
        return self.path / "trials" / trial_id

    def begin(self, trial: Trial, command: str) -> Path:
        """Returns the run folder of a trial, creating it if necessary.

        Args:
            trial: the trial.
            command: the command that trains it alone.
        """
        run = self.run(trial.id)
        run.mkdir(parents=True, exist_ok=True)
        if not (run / CONFIG_FILE).exists():
            write_config(trial.config, run)
        self.note(trial, "running", command=command)
        return run

    def note(self, trial: Trial, status: str, **facts: object) -> Json:
        """Updates the notes of a trial and returns all of them.

        Args:
            trial: the trial.
            status: `running`, `stopped`, or one of `OVER`.
            **facts: JSON values to note; None deletes a note.
        """
        known = self.status(trial.id) or {}
        known |= {"id": trial.id, "overrides": trial.overrides, "status": status, **facts}
        path = self.run(trial.id) / STATUS_FILE
        written = {key: value for key, value in known.items() if value is not None}
        write_json(path, written)
        return written

    def status(self, trial_id: str) -> Json | None:
        """The notes of a trial; None if there are none.

        A trial whose loss is not finite has failed, even if an earlier version noted `done`.

        Raises:
            WorkdirError: if the notes are damaged.
        """
        path = self.run(trial_id) / STATUS_FILE
        try:
            noted = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError) as error:
            raise WorkdirError(f"{path} is not JSON: {error}. Delete it to train again.") from None
        if not _is_note(noted):
            raise WorkdirError(f"{path} is damaged: delete it to train again.")
        loss = noted.get("validation_loss", 0.0)
        if math.isfinite(loss):
            return noted
        del noted["validation_loss"]
        return {"error": f"the validation loss is {loss}", **noted, "status": "failed"}

    def losses(self, trial_id: str) -> tuple[list[int], list[float]]:
        """Steps and validation losses that a trial has logged."""
        lines = read_metrics(self.run(trial_id), functools.partial(print, file=sys.stderr))
        found = [line for line in lines if line["split"] == VALIDATION and "loss" in line]
        return [line["step"] for line in found], [line["loss"] for line in found]

    def is_over(self, trial_id: str) -> bool:
        """Whether this trial needs no more training."""
        status = self.status(trial_id)
        return status is not None and status["status"] in OVER

    def statuses(self) -> list[Json]:
        """The notes of all trials; `cut off` replaces `running` if no process trains the trial."""
        found = []
        for path in sorted(self.path.glob(f"trials/*/{STATUS_FILE}")):
            status = self.status(path.parent.name)
            if status is None:
                continue
            if status["status"] == "running" and self.is_free(status["id"]):
                status["status"] = "cut off"
            found.append(status)
        return found

    @contextlib.contextmanager
    def claim(self, name: str, *, wait: bool = False) -> Iterator[bool]:
        """Inside `with`, holds a lock; yields whether it was available.

        The lock is released whenever its process ends, even if killed. `transformer.locks` says
        where it holds between hosts.

        Args:
            name: the name of the lock.
            wait: waits until the lock is available.

        Raises:
            WorkdirError: if the operating system or the file system has no locks.
        """
        path = self.path / "locks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as held:
            try:
                # Keep the file: it shows that a trial belongs to this folder.
                held.enter_context(locked(path, wait=wait, keep=True))
            except LockedError:
                yield False
                return
            except NoLocksError as error:
                raise WorkdirError(
                    f"{error}: workers could not share the sweep in {self.path}. Sweeps run on "
                    f"Linux and macOS, and on Windows in its Subsystem for Linux, in a --workdir "
                    f"on a file system with locks."
                ) from None
            yield True

    def is_free(self, name: str) -> bool:
        """Whether no process holds a lock."""
        with self.claim(name) as mine:
            return mine


def _is_note(value: object) -> bool:
    """Whether a value has the form that `Folder.note` writes."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("id"), str)
        and isinstance(value.get("status"), str)
        and isinstance(value.get("overrides"), dict)
        and isinstance(value.get("validation_loss", 0.0), int | float)
    )
