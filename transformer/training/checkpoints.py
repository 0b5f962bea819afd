"""Checkpoints with Orbax: train state, data position and metadata together, checked on return.

Every checkpoint carries a fingerprint of each array. Restoring compares them, so that a damaged
file is detected even where the file format would not notice. It also carries its validation loss,
which says in any later process which one is the best.
"""

import dataclasses
import json
import logging
import math
import shutil
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree
from orbax.checkpoint import checkpoint_managers

from transformer.checks import require_plain_path
from transformer.errors import CheckpointError, WorkdirError
from transformer.training.processes import is_first, meet
from transformer.training.saved_arrays import (
    fingerprints,
    leaves_by_path,
    raw,
    raw_shapes,
    with_keys_like,
)

FOLDER = "checkpoints"
# The trees of arrays a checkpoint may hold.
ITEMS = ("params", "average", "training")
# Where a checkpoint's metadata has the validation loss at its step.
VALIDATION_LOSS = "validation_loss"
# Where checkpoints go that could not be read: nothing is deleted.
UNREADABLE = "unreadable_checkpoints"


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
    """The checkpoints of one run: `workdir/checkpoints`. Leaving `with` releases what it holds."""

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
        )
        trees = {
            name: ocp.StandardCheckpointHandler(save_concurrent_gb=gigabytes_at_once)
            for name in ITEMS
        }
        notes = {name: ocp.JsonCheckpointHandler() for name in ("data", "metadata")}
        self._manager = ocp.CheckpointManager(
            self._folder, options=options, item_handlers=trees | notes
        )
        for step in self.steps():
            loss = self._saved_loss(step)
            if loss is not None:
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

    def best_step(self) -> int | None:
        """The step with the lowest validation loss; None if no checkpoint was evaluated."""
        return lowest(self._losses, self.steps())

    def _saved_loss(self, step: int) -> float | None:
        """The validation loss that a checkpoint carries; None if it has none or is damaged."""
        try:
            text = (self._folder / str(step) / "metadata" / "metadata").read_text("utf-8")
            loss = json.loads(text).get(VALIDATION_LOSS)
        except (OSError, ValueError, AttributeError):
            # Whoever restores it is told; here it is only not the best.
            return None
        return loss if isinstance(loss, float) else None

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
            CheckpointError: if this save or the one before cannot be written.
        """
        if validation_loss is not None and math.isfinite(validation_loss):
            self._losses[step] = validation_loss
            metadata = {**metadata, VALIDATION_LOSS: float(validation_loss)}
        items: dict[str, Any] = {
            name: ocp.args.StandardSave(raw(tree)) for name, tree in state.items()
        }
        items["data"] = ocp.args.JsonSave(dict(data))
        prints = {name: fingerprints(tree) for name, tree in state.items()}
        items["metadata"] = ocp.args.JsonSave({**metadata, "fingerprints": prints})
        with _Explained(self._folder, "saved"):
            if not self._manager.save(step, args=ocp.args.Composite(**items)):
                newest = self._manager.latest_step()
                raise RuntimeError(f"step {step} is not newer than step {newest}, which is there.")

    def wait(self) -> None:
        """Returns when everything is on disk.

        Raises:
            CheckpointError: if it cannot be written.
        """
        with _Explained(self._folder, "saved"):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Releases what the manager holds, when everything is on disk.

        Raises:
            CheckpointError: if it cannot be written.
        """
        with _Explained(self._folder, "saved"):
            self._manager.close()

    def restore(self, step: int, wanted: Mapping[str, PyTree]) -> Restored:
        """Restores the checkpoint of one step.

        Args:
            step: one of `steps()`.
            wanted: for each item, a tree of shapes with dtypes and shardings.

        Raises:
            CheckpointError: if it cannot be read, or is not what was saved.
            WorkdirError: if its arrays have other names, shapes or dtypes than wanted.
        """
        for name, tree in wanted.items():
            self._compare(step, name, tree)
        arguments: dict[str, Any] = {
            name: ocp.args.StandardRestore(raw_shapes(tree)) for name, tree in wanted.items()
        }
        arguments |= {"data": ocp.args.JsonRestore(), "metadata": ocp.args.JsonRestore()}
        try:
            found: Any = self._manager.restore(step, args=ocp.args.Composite(**arguments))
        except Exception as error:  # A damaged file can fail in any layer below.
            raise CheckpointError(f"{self._folder / str(step)}: {_first_line(error)}") from error
        for name in wanted:
            saved = found.metadata["fingerprints"][name]
            for path, value in fingerprints(found[name]).items():
                if saved.get(path) != value:
                    raise CheckpointError(
                        f"{self._folder / str(step)}: {name}{path} is not what was saved."
                    )
        state = {name: with_keys_like(found[name], tree) for name, tree in wanted.items()}
        return Restored(step, state, found.data, found.metadata)

    def saved_shapes(self, step: int, item: str) -> PyTree:
        """Shapes and dtypes of the arrays that a checkpoint holds under one item.

        Raises:
            CheckpointError: if it cannot be read, or has no such item.
        """
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), self._saved(step, item).tree
        )

    def restore_newest(
        self, wanted: Mapping[str, PyTree], say: Callable[[str], None]
    ) -> Restored | None:
        """Restores the newest checkpoint that can be read; None if there is none at all.

        Checkpoints that cannot be read are moved to `unreadable_checkpoints`, and `say` is told.

        Raises:
            CheckpointError: if there are checkpoints and none can be read.
        """
        errors: dict[int, CheckpointError] = {}
        for step in reversed(self.steps()):
            try:
                restored = self.restore(step, wanted)
            except CheckpointError as error:
                errors[step] = error
                continue
            for bad, error in errors.items():
                aside = self._set_aside(bad)
                say(f"The checkpoint of step {bad} cannot be read; moved to {aside}: {error}")
            return restored
        if errors:
            raise CheckpointError(
                f"none of the {len(errors)} checkpoints in {self._folder} can be read: "
                f"{errors[max(errors)]} They are left as they are; start again in a new --workdir."
            )
        return None

    def _set_aside(self, step: int) -> Path:
        """Moves a checkpoint out of the way of the next save of its step."""
        aside = self._folder.parent / UNREADABLE / str(step)
        if is_first():
            aside.parent.mkdir(exist_ok=True)
            if aside.exists():
                shutil.rmtree(aside)
            shutil.move(self._folder / str(step), aside)
        meet(f"checkpoint {step} is set aside")
        self._manager.reload()
        self._losses.pop(step, None)
        return aside

    def _compare(self, step: int, item: str, wanted: PyTree) -> None:
        """Refuses arrays of other shapes or dtypes: Orbax would cast or crop them silently."""
        saved = leaves_by_path(self._saved(step, item).tree)
        expected = leaves_by_path(raw_shapes(wanted))
        for path in sorted(expected.keys() | saved.keys()):
            theirs, ours = saved.get(path), expected.get(path)
            if theirs is None or ours is None:
                where = "the model" if theirs is None else "the checkpoint"
                raise WorkdirError(
                    f"{item}{path} is only in {where}, not in both: the checkpoint of step {step} "
                    f"belongs to another model or optimizer."
                )
            if tuple(theirs.shape) != tuple(ours.shape) or theirs.dtype != ours.dtype:
                raise WorkdirError(
                    f"{item}{path} is {theirs.dtype}{list(theirs.shape)} in the checkpoint of step "
                    f"{step} and {ours.dtype}{list(ours.shape)} in the model."
                )

    def _saved(self, step: int, item: str) -> Any:
        """What Orbax noted of an item's arrays."""
        try:
            saved = self._manager.item_metadata(step)[item]
        except Exception as error:  # A damaged file can fail in any layer below.
            raise CheckpointError(f"{self._folder / str(step)}: {_first_line(error)}") from error
        if saved is None:
            raise CheckpointError(f"{self._folder / str(step)} has no {item}.")
        return saved


class _Explained:
    """Turns whatever a write raises into one clear error."""

    def __init__(self, folder: Path, verb: str) -> None:
        self._folder, self._verb = folder, verb

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, Exception):
            raise CheckpointError(
                f"the checkpoint could not be {self._verb} in {self._folder}: {_first_line(error)} "
                f"Is the disk full? Earlier checkpoints are intact: free some space and run the "
                f"same command again."
            ) from error


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    line = text.splitlines()[0]
    # The cause stands at the end of a long line.
    return line if len(line) <= 300 else f"{line[:100]} ... {line[-200:]}"
