"""Checkpoints with Orbax: train state, data position and metadata together, checked on return.

Every checkpoint carries a fingerprint of each array, and its notes a seal (see `training.notes`).
Restoring compares them, so that a damaged file is detected even where the file format would not
notice. The notes also have its validation loss, which says in any later process which one is the
best: one whose notes are damaged has none, and never is. What cannot be used is named and moved out
of the way, and the next best or newest takes its place; nothing is deleted for being damaged.
"""

import dataclasses
import logging
import math
import os
import shutil
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from jaxtyping import PyTree
from orbax.checkpoint import checkpoint_managers

from transformer.checks import require_plain_path
from transformer.errors import CheckpointError, SaveError, WorkdirError
from transformer.training.notes import FOLDER, Notes, is_step, read_notes, sealed
from transformer.training.processes import barrier, is_first
from transformer.training.saved_arrays import raw
from transformer.training.saved_items import array_notes, first_line, item_shapes, restored_item

# The trees of arrays a checkpoint may hold.
ITEMS = ("params", "average", "training")
# Where a checkpoint's metadata has the validation loss at its step.
VALIDATION_LOSS = "validation_loss"
# Where checkpoints go that could not be read: nothing is deleted.
UNREADABLE = "unreadable_checkpoints"
# Where those go that are no longer kept, until they are deleted: of a checkpoint whose deletion a
# kill cuts short nothing is left that looks like one.
_DELETED = ".deleted"

# Orbax measures how long it waits by a clock that can be set, and gives a save up when that has
# jumped ahead: by a day where a laptop has slept, by decades where a board without a battery hears
# what time it is. A hundred years are no limit; that of another process is its sign of life.
_PATIENT = ocp.AsyncOptions(timeout_secs=100 * 366 * 86400, create_directories_asynchronously=False)


@dataclasses.dataclass(frozen=True)
class Restored:
    """What a checkpoint held.

    Attributes:
        step: after which it was saved.
        state: the arrays asked for, by item.
        data: position in the data.
        metadata: whatever was given to `save`.
    """

    step: int
    state: dict[str, PyTree]
    data: Mapping[str, Any]
    metadata: Mapping[str, Any]


class NewestAndBest(checkpoint_managers.PreservationPolicy):
    """Keeps the newest checkpoints and the one with the lowest validation loss.

    Orbax's own `BestN` needs `best_fn`, whose file of metrics has no checksum and makes the whole
    folder unreadable when it is damaged.

    Args:
        keep_last: how many of the newest.
        losses: validation losses by step; those that come later count, too.
    """

    def __init__(self, keep_last: int, losses: Mapping[int, float]) -> None:
        self._keep_last, self._losses = keep_last, losses

    def should_preserve(
        self,
        checkpoints: Sequence[Any],
        *,
        context: Any,
    ) -> Sequence[bool]:
        """Whether to keep each of the checkpoints, of which the last one is being saved."""
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = {*sorted(steps)[-self._keep_last :], lowest(self._losses, steps)}
        return [step in kept for step in steps]


def lowest(losses: Mapping[int, float], steps: Sequence[int]) -> int | None:
    """The step with the lowest loss, the first of equals; None if none of them has a loss."""
    known = [step for step in sorted(steps) if step in losses]
    return min(known, key=lambda step: losses[step], default=None)


class Checkpoints:
    """The checkpoints of one run: `workdir/checkpoints`. Leaving `with` releases what it holds.

    Attributes:
        strange: names in the folder that are no steps.
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
            read_only: makes nothing and deletes nothing.
            gigabytes_at_once: of arrays that are copied to be written at the same time; more than
                the largest has.
        """
        # Orbax logs what we report in words of our own, each failed write separately.
        for name in ("absl", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        require_plain_path(workdir)
        self._folder = workdir.absolute() / FOLDER
        self._losses: MutableMapping[int, float] = {}
        options = ocp.CheckpointManagerOptions(
            preservation_policy=NewestAndBest(keep_last, self._losses),
            read_only=read_only,
            create=not read_only,
            async_options=_PATIENT,
            todelete_subdir=None if read_only else _DELETED,
            # What a killed process was saving.
            cleanup_tmp_directories=not read_only,
        )
        self._deletes = not read_only and is_first()
        self._delete_for_good()
        handlers: dict[str, Any] = {
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
        # Unfinished saves are Orbax's affair.
        names = [path.name for path in found if "orbax-checkpoint-tmp" not in path.name]
        self.strange = sorted(name for name in names if not (is_step(name) or name.startswith(".")))
        for step in sorted(int(name) for name in names if is_step(name)):
            self._look_at(step)

    def _suspects(self) -> str:
        """Which checkpoints may be damaged, for a message; empty without any."""
        paths = self._folder.iterdir() if self._folder.is_dir() else ()
        steps = sorted(int(path.name) for path in paths if is_step(path.name))
        names = ", ".join(f"checkpoints/{step}/_CHECKPOINT_METADATA" for step in steps)
        return f" One of these may be damaged: {names}." if names else ""

    def _look_at(self, step: int) -> None:
        """Reads the notes of a checkpoint that is there."""
        try:
            self._notes[step] = read_notes(self._folder / str(step))
        except CheckpointError as error:
            # The process that trains here may have deleted it just now.
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
            # The first error is the one to tell.
            if error is None:
                raise

    def steps(self) -> list[int]:
        """The steps with a checkpoint, oldest first."""
        return sorted(self._manager.all_steps())

    def damaged(self) -> Mapping[int, CheckpointError]:
        """What is wrong with those whose notes are damaged, or which are no folders, by step."""
        return self._damaged

    def whole_steps(self) -> list[int]:
        """The steps whose notes are not damaged, oldest first."""
        return [step for step in self.steps() if step not in self._damaged]

    def best_first(self) -> list[int]:
        """The same by validation loss, the lowest first; those without one last, newest first."""
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
        data: Mapping[str, Any],
        metadata: Mapping[str, Any],
        validation_loss: float | None,
    ) -> None:
        """Begins to save; the arrays may change as soon as this returns.

        Args:
            step: after which the state is.
            state: arrays by item; an item can be restored without the others.
            data: position in the data.
            metadata: anything JSON can hold.
            validation_loss: at this step, if it was measured, of the average if there is one. One
                that is not finite is never the best.

        Raises:
            SaveError: if this save or the one before cannot be written.
        """
        if validation_loss is not None and math.isfinite(validation_loss):
            self._losses[step] = validation_loss
            metadata = {**metadata, VALIDATION_LOSS: float(validation_loss)}
        items: dict[str, Any] = {
            name: ocp.args.StandardSave(raw(tree)) for name, tree in state.items()
        }
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
        """Releases what the manager holds, when everything is on disk.

        Raises:
            SaveError: if it cannot be written.
        """
        with _Explained(self._folder, "saved"):
            self._manager.close()
        self._delete_for_good()

    def _delete_for_good(self) -> None:
        """Deletes what is no longer kept; whatever cannot be deleted is tried again next time."""
        if self._deletes:
            shutil.rmtree(self._folder / _DELETED, ignore_errors=True)

    def notes(self, step: int) -> Notes:
        """The notes of one checkpoint.

        Raises:
            CheckpointError: if they cannot be read, or are not what was saved.
        """
        if step in self._damaged:
            raise self._damaged[step]
        return self._notes[step] if step in self._notes else read_notes(self._folder / str(step))

    def restore(self, step: int, wanted: Mapping[str, PyTree]) -> Restored:
        """Restores the checkpoint of one step; items that are not wanted may be damaged.

        Args:
            step: one of `steps()`.
            wanted: for each item, a tree of shapes with dtypes and shardings.

        Raises:
            CheckpointError: if it cannot be read, or is not what was saved.
            WorkdirError: if its arrays have other names, shapes or dtypes than wanted.
        """
        notes, place = self.notes(step), self._folder / str(step)
        state = {item: restored_item(place, notes, item, tree) for item, tree in wanted.items()}
        return Restored(step, state, notes.data, notes.metadata)

    def saved_shapes(self, step: int, item: str) -> PyTree:
        """Shapes and dtypes of the arrays that a checkpoint holds under one item.

        Raises:
            CheckpointError: if it cannot be read, or has no such item.
        """
        return item_shapes(self._folder / str(step), self.notes(step), item)

    def restore_newest(
        self, wanted: Mapping[str, PyTree], say: Callable[[str], None]
    ) -> Restored | None:
        """Restores the newest checkpoint that can be read; None if there is none at all.

        Newer ones that cannot be read, and all with damaged notes, are moved to
        `unreadable_checkpoints`, and `say` is told: they would be in the way, or be deleted as
        those that are neither new nor the best.

        Raises:
            CheckpointError: if there are checkpoints and none can be read.
        """
        for name in self.strange:
            say(f"{self._folder / name} is no checkpoint: its name is no step. It is left alone.")
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
            return restored
        if errors:
            raise CheckpointError(
                f"none of the {len(errors)} checkpoints in {self._folder} can be read: "
                f"{errors[max(errors)]} They are left as they are; start again in a new --workdir."
            )
        return None

    def _set_aside(self, step: int) -> Path:
        """Moves a checkpoint out of the way of the next save of its step."""
        folder, place = self._folder.parent / UNREADABLE, self._folder / str(step)
        count, aside = 1, folder / str(step)
        while os.path.lexists(aside):
            count += 1
            aside = folder / f"{step}-{count}"
        # All have found the same name before one of them takes it.
        barrier(f"checkpoint {step} is to be set aside")
        if is_first():
            folder.mkdir(exist_ok=True)
            # Not copied, which a file that cannot be read would stop.
            place.rename(aside)
        barrier(f"checkpoint {step} is set aside")
        self._manager.reload()
        for known in (self._losses, self._notes, self._damaged):
            known.pop(step, None)
        return aside


class _Explained:
    """Turns whatever a write raises into one clear error."""

    def __init__(self, folder: Path, verb: str) -> None:
        self._folder, self._verb = folder, verb

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, Exception):
            raise SaveError(
                f"the checkpoint could not be {self._verb} in {self._folder}: {first_line(error)} "
                f"Is the disk full? Earlier checkpoints are intact: free some space and run the "
                f"same command again."
            ) from error
