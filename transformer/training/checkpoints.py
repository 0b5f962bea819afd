"""Orbax checkpoints of train state, data position and metadata, verified when restored.

Every checkpoint stores a fingerprint of each array, and its notes carry a seal (see
`training.notes`). Restoring compares them, so a damaged file is detected even if its format has no
checksum. The notes also hold the validation loss, so any later process knows which checkpoint is
the best; a checkpoint with damaged notes has no loss and is never the best. A checkpoint that
cannot be used is reported and moved aside, and the next best or newest is used instead. Damaged
checkpoints are never deleted.
"""

import dataclasses
import logging
import math
import os
import shutil
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path

import orbax.checkpoint as ocp
from jaxtyping import PyTree

from transformer.checks import require_plain_path
from transformer.errors import CheckpointError, SaveError, WorkdirError
from transformer.training.notes import FOLDER, Notes, is_step, read_notes, sealed
from transformer.training.processes import barrier, is_first
from transformer.training.retention import NewestAndBest, lowest
from transformer.training.saved_arrays import raw
from transformer.training.saved_items import array_notes, first_line, item_shapes, restored_item
from transformer.types import Facts, Json

# The trees of arrays a checkpoint may hold.
ITEMS = ("params", "average", "training")
# Key of the validation loss in a checkpoint's metadata.
VALIDATION_LOSS = "validation_loss"
# Folder for checkpoints that could not be read: nothing is deleted.
UNREADABLE = "unreadable_checkpoints"
# Folder for checkpoints that are about to be deleted: if the process is killed in the middle of a
# deletion, the remains do not look like a checkpoint.
_DELETED = ".deleted"

# Orbax measures its timeout with the wall clock and abandons a save when the clock jumps ahead: by
# a day after a laptop has slept, by decades when a board without a battery learns the time. A
# hundred years amount to no timeout; a dead process is noticed by its missing heartbeat instead.
_PATIENT = ocp.AsyncOptions(timeout_secs=100 * 366 * 86400, create_directories_asynchronously=False)


@dataclasses.dataclass(frozen=True)
class Restored:
    """The contents of a restored checkpoint.

    Attributes:
        step: the step after which it was saved.
        state: the requested arrays, by item.
        data: position in the data.
        metadata: whatever was given to `save`.
    """

    step: int
    state: dict[str, PyTree]
    data: Facts
    metadata: Facts


class Checkpoints:
    """The checkpoints of one run, in `workdir/checkpoints`. Leaving `with` closes them.

    Attributes:
        strange: names in the folder that are not steps.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        keep_last: int = 1,
        read_only: bool = False,
        gigabytes_at_once: int = 96,
    ) -> None:
        """Opens or makes the folder.

        Args:
            workdir: the run folder.
            keep_last: how many of the newest checkpoints to keep.
            read_only: creates and deletes nothing.
            gigabytes_at_once: limit of the copies of arrays that wait to be written; must exceed
                the
                size of the largest array.
        """
        # Orbax logs each failed write; we report them ourselves.
        for name in ("absl", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        require_plain_path(workdir)
        self._folder = workdir.absolute() / FOLDER
        self._losses: MutableMapping[int, float] = {}
        self._policy = NewestAndBest(keep_last, self._losses)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self._policy,
            read_only=read_only,
            create=not read_only,
            async_options=_PATIENT,
            todelete_subdir=None if read_only else _DELETED,
            # Incomplete saves of a killed process.
            cleanup_tmp_directories=not read_only,
        )
        self._deletes = not read_only and is_first()
        self._delete_for_good()
        handlers: Json = {
            name: ocp.StandardCheckpointHandler(save_concurrent_gb=gigabytes_at_once)
            for name in ITEMS
        }
        handlers |= {name: ocp.JsonCheckpointHandler() for name in ("data", "metadata")}
        try:
            self._manager = ocp.CheckpointManager(
                self._folder, options=options, item_handlers=handlers
            )
            found = list(self._folder.iterdir()) if self._folder.exists() else []
        except (OSError, ValueError) as error:
            raise WorkdirError(
                f"{self._folder} is no folder of checkpoints that can be used: {first_line(error)}"
                f"{self._suspects()}"
            ) from None
        self._notes: dict[int, Notes] = {}
        self._damaged: dict[int, CheckpointError] = {}
        # Orbax takes care of unfinished saves.
        names = [path.name for path in found if "orbax-checkpoint-tmp" not in path.name]
        self.strange = sorted(name for name in names if not (is_step(name) or name.startswith(".")))
        for step in sorted(int(name) for name in names if is_step(name)):
            self._look_at(step)

    def _suspects(self) -> str:
        """A sentence for error messages that lists possibly damaged checkpoints; may be empty."""
        paths = self._folder.iterdir() if self._folder.is_dir() else ()
        steps = sorted(int(path.name) for path in paths if is_step(path.name))
        names = ", ".join(f"checkpoints/{step}/_CHECKPOINT_METADATA" for step in steps)
        return f" One of these may be damaged: {names}." if names else ""

    def _look_at(self, step: int) -> None:
        """Reads the notes of an existing checkpoint."""
        try:
            self._notes[step] = read_notes(self._folder / str(step))
        except CheckpointError as error:
            # A process that trains here may have just deleted it.
            if os.path.lexists(self._folder / str(step)):
                self._damaged[step] = error
            return
        loss = self._notes[step].metadata.get(VALIDATION_LOSS)
        if isinstance(loss, float) and math.isfinite(loss):
            self._losses[step] = loss

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            self.close()
        except CheckpointError:
            # Report the first error only.
            if error is None:
                raise

    def steps(self) -> list[int]:
        """The steps with a checkpoint, oldest first."""
        return sorted(self._manager.all_steps())

    def damaged(self) -> Mapping[int, CheckpointError]:
        """By step, the errors of checkpoints with damaged notes or that are not folders."""
        return self._damaged

    def whole_steps(self) -> list[int]:
        """The steps whose notes are not damaged, oldest first."""
        return [step for step in self.steps() if step not in self._damaged]

    def best_first(self) -> list[int]:
        """The whole steps, lowest validation loss first; then those without one, newest first."""
        left, ordered = self.whole_steps(), []
        while (best := lowest(self._losses, left)) is not None:
            ordered.append(best)
            left.remove(best)
        return ordered + left[::-1]

    def best_step(self) -> int | None:
        """The step with the lowest validation loss; None if no checkpoint was evaluated."""
        return lowest(self._losses, self.steps())

    def save(
        self,
        step: int,
        state: Mapping[str, PyTree],
        *,
        data: Facts,
        metadata: Facts,
        validation_loss: float | None,
    ) -> None:
        """Starts an asynchronous save; the arrays may change as soon as this returns.

        Args:
            step: the number of steps taken so far.
            state: arrays by item; each item can be restored without the others.
            data: position in the data.
            metadata: any JSON values.
            validation_loss: measured at this step, with the averaged parameters if there are any;
                None if not measured. A loss that is not finite is never the best.

        Raises:
            SaveError: if this save or the previous one cannot be written.
        """
        if validation_loss is not None and math.isfinite(validation_loss):
            self._losses[step] = validation_loss
            metadata = {**metadata, VALIDATION_LOSS: float(validation_loss)}
        items: Json = {name: ocp.args.StandardSave(raw(tree)) for name, tree in state.items()}
        items["data"] = ocp.args.JsonSave(dict(data))
        metadata = {**metadata, **array_notes(state)}
        items["metadata"] = ocp.args.JsonSave(sealed(step, data, metadata))
        with _Explained(self._folder, "saved"):
            if not self._manager.save(step, args=ocp.args.Composite(**items)):
                newest = self._manager.latest_step()
                raise RuntimeError(f"step {step} is not newer than step {newest}, which is there.")
        self._delete_for_good()

    def wait(self) -> None:
        """Returns when everything is on disk.

        Raises:
            SaveError: if it cannot be written.
        """
        with _Explained(self._folder, "saved"):
            self._manager.wait_until_finished()
        self._delete_for_good()

    def close(self) -> None:
        """Waits until everything is on disk, then closes the manager.

        Raises:
            SaveError: if it cannot be written.
        """
        with _Explained(self._folder, "saved"):
            self._manager.close()
        self._delete_for_good()

    def _delete_for_good(self) -> None:
        """Deletes discarded checkpoints; those that cannot be deleted are tried again next time."""
        if self._deletes:
            shutil.rmtree(self._folder / _DELETED, ignore_errors=True)

    def notes(self, step: int) -> Notes:
        """The notes of one checkpoint.

        Raises:
            CheckpointError: if they cannot be read or differ from what was saved.
        """
        if step in self._damaged:
            raise self._damaged[step]
        return self._notes[step] if step in self._notes else read_notes(self._folder / str(step))

    def restore(self, step: int, wanted: Mapping[str, PyTree]) -> Restored:
        """Restores the checkpoint of one step; damage in items that are not wanted is ignored.

        Args:
            step: one of `steps()`.
            wanted: for each item, a tree of shapes with dtypes and shardings.

        Raises:
            CheckpointError: if it cannot be read or differs from what was saved.
            WorkdirError: if the names, shapes or dtypes of its arrays are not the wanted ones.
        """
        notes, place = self.notes(step), self._folder / str(step)
        state = {item: restored_item(place, notes, item, tree) for item, tree in wanted.items()}
        return Restored(step, state, notes.data, notes.metadata)

    def saved_shapes(self, step: int, item: str) -> PyTree:
        """Shapes and dtypes of the arrays in one item of a checkpoint.

        Raises:
            CheckpointError: if it cannot be read, or has no such item.
        """
        return item_shapes(self._folder / str(step), self.notes(step), item)

    def restore_newest(
        self, wanted: Mapping[str, PyTree], say: Callable[[str], None]
    ) -> Restored | None:
        """Restores the newest readable checkpoint; None if there are no checkpoints.

        Newer ones that cannot be read, and all with damaged notes, are moved to
        `unreadable_checkpoints` and reported through `say`. Otherwise they would block the next
        save of their step, or be deleted for being neither new nor the best.

        Raises:
            CheckpointError: if there are checkpoints but none can be read.
        """
        for name in self.strange:
            say(f"{self._folder / name} is no checkpoint: its name is not a step. It stays.")
        errors = dict(self._damaged)
        for step in reversed(self.whole_steps()):
            try:
                restored = self.restore(step, wanted)
            except CheckpointError as error:
                errors[step] = error
                continue
            barrier("a checkpoint is restored")
            for bad in sorted(errors, reverse=True):
                aside = self._set_aside(bad)
                say(f"The checkpoint of step {bad} cannot be read; moved to {aside}: {errors[bad]}")
            self._discard_old()
            return restored
        if errors:
            raise CheckpointError(
                f"none of the {len(errors)} checkpoints in {self._folder} can be read: "
                f"{errors[max(errors)]} They are left as they are; start again in a new --workdir."
            )
        return None

    def _discard_old(self) -> None:
        """Deletes what a save would have deleted that was killed when its own checkpoint was there.

        Not before the newest one is known to be good.
        """
        steps = self.whole_steps()
        old = [step for step in steps if step not in self._policy.kept(steps)]
        if not old:
            return
        barrier("old checkpoints are to be discarded")
        if self._deletes:
            (self._folder / _DELETED).mkdir(exist_ok=True)
            for step in old:
                (self._folder / str(step)).rename(self._folder / _DELETED / str(step))
        barrier("old checkpoints are discarded")
        self._forget(old)
        self._delete_for_good()

    def _forget(self, steps: Sequence[int]) -> None:
        """Checkpoints that are no longer in the folder."""
        self._manager.reload()
        for step in steps:
            for known in (self._losses, self._notes, self._damaged):
                known.pop(step, None)

    def _set_aside(self, step: int) -> Path:
        """Moves a checkpoint aside, so that its step can be saved again."""
        folder, place = self._folder.parent / UNREADABLE, self._folder / str(step)
        count, aside = 1, folder / str(step)
        while os.path.lexists(aside):
            count += 1
            aside = folder / f"{step}-{count}"
        # All processes choose the same free name before the first one uses it.
        barrier(f"checkpoint {step} is to be set aside")
        if is_first():
            folder.mkdir(exist_ok=True)
            # Rename instead of copying, because a copy would fail on an unreadable file.
            place.rename(aside)
        barrier(f"checkpoint {step} is set aside")
        self._forget([step])
        return aside


class _Explained:
    """Inside `with`, turns any exception of a write into one clear error."""

    def __init__(self, folder: Path, verb: str) -> None:
        self._folder, self._verb = folder, verb

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, Exception):
            raise SaveError(
                f"the checkpoint could not be {self._verb} in {self._folder}: {first_line(error)} "
                f"Is the disk full? Earlier checkpoints are intact: free some space and run the "
                f"same command again."
            ) from error
