"""The folder of a sweep: its trials, what became of them, and who is at which.

trials/ID/              the run folder of a trial, and in it
trials/ID/status.json   what it is and what became of it
locks/ID                held by the process that trains it
"""

import contextlib
import dataclasses
import functools
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformer.data.reading.limits import parse_json
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
# What a trial is when nobody needs to train it any more.
OVER = ("done", "pruned", "failed")


@dataclasses.dataclass(frozen=True)
class Folder:
    """The folder of a sweep.

    Attributes:
        path: of it.
    """

    path: Path

    def run(self, trial_id: str) -> Path:
        """The run folder of a trial."""
        return self.path / "trials" / trial_id

    def begin(self, trial: Trial, command: str) -> Path:
        """Makes the run folder of a trial, if it is not there, and returns it.

        Args:
            trial: which one.
            command: that trains it alone.
        """
        run = self.run(trial.id)
        run.mkdir(parents=True, exist_ok=True)
        if not (run / CONFIG_FILE).exists():
            write_config(trial.config, run)
        self.note(trial, "running", command=command)
        return run

    def note(self, trial: Trial, status: str, **facts: Any) -> Json:
        """Writes down what became of a trial, keeps what was noted before, and returns it all.

        Args:
            trial: which one.
            status: `running`, `stopped`, or one of `OVER`.
            **facts: what JSON can hold; None forgets what was noted.
        """
        known = self.status(trial.id) or {}
        known |= {"id": trial.id, "overrides": trial.overrides, "status": status, **facts}
        path = self.run(trial.id) / STATUS_FILE
        written = {key: value for key, value in known.items() if value is not None}
        write_json(path, written)
        return written

    def status(self, trial_id: str) -> Json | None:
        """What was noted of a trial; None if nothing was.

        One whose loss is not finite has failed, also where an earlier version noted `done`.

        Raises:
            WorkdirError: if the note is garbled.
        """
        path = self.run(trial_id) / STATUS_FILE
        try:
            noted = parse_json(path.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
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
        """Whether nobody needs to train this trial any more."""
        status = self.status(trial_id)
        return status is not None and status["status"] in OVER

    def statuses(self) -> list[Json]:
        """What was noted of all trials; `cut off` where it says `running` and nobody is at it."""
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
        """Holds the lock of a trial while entered; says whether it could be had.

        It ends with the process that holds it, however that ends, so that nothing is left behind by
        one that was killed. `transformer.locks` says where it holds between hosts.

        Args:
            name: of the lock.
            wait: returns when it can be had, rather than saying no.

        Raises:
            WorkdirError: if the system or the file system has no locks.
        """
        path = self.path / "locks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as held:
            try:
                # The file stays, which says that a trial is of this folder.
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
    """Whether it is what `Folder.note` writes."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("id"), str)
        and isinstance(value.get("status"), str)
        and isinstance(value.get("overrides"), dict)
        and isinstance(value.get("validation_loss", 0.0), int | float)
    )
