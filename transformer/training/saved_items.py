"""Reads the arrays of one item of a checkpoint and compares them with the notes."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from transformer.errors import CheckpointError, WorkdirError
from transformer.training.notes import Notes
from transformer.training.saved_arrays import (
    described_arrays,
    fingerprints,
    leaves_by_path,
    raw_shapes,
    with_keys_like,
)
from transformer.types import Json

# Keys in the notes: fingerprints, dtypes and shapes of arrays; formerly only fingerprints.
_ARRAYS, _FINGERPRINTS = "arrays", "fingerprints"


def array_notes(state: Mapping[str, PyTree]) -> Json:
    """The part of a checkpoint's metadata that describes its arrays, by item."""
    return {_ARRAYS: {item: described_arrays(tree) for item, tree in state.items()}}


def restored_item(checkpoint: Path, notes: Notes, item: str, wanted: PyTree) -> PyTree:
    """Reads the arrays of one item, without looking at other items.

    Args:
        checkpoint: its folder.
        notes: the notes of the checkpoint.
        item: its name.
        wanted: a tree of shapes with dtypes and shardings.

    Raises:
        CheckpointError: if it cannot be read or differs from what was saved.
        WorkdirError: if the names, shapes or dtypes of its arrays are not the wanted ones.
    """
    _compare(checkpoint, notes, item, wanted)
    arguments = ocp.args.StandardRestore(raw_shapes(wanted))
    with _read(checkpoint, item):
        found = ocp.StandardCheckpointHandler().restore(checkpoint / item, args=arguments)
    _require_saved(checkpoint, notes, item, found)
    return with_keys_like(found, wanted)


def item_shapes(checkpoint: Path, notes: Notes, item: str) -> PyTree:
    """Shapes and dtypes of the arrays of one item.

    Raises:
        CheckpointError: if the item does not exist or cannot be read.
    """
    noted = notes.metadata.get(_ARRAYS)
    if noted is not None and item not in noted:
        raise CheckpointError(f"{checkpoint} has no {item}: it was saved without.")
    if not (checkpoint / item).is_dir():
        raise CheckpointError(f"{checkpoint} is damaged: it has no {item}.")
    with _read(checkpoint, item):
        tree = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype),
            ocp.StandardCheckpointHandler().metadata(checkpoint / item).tree,
        )
        if noted is not None:
            saved = {path: (dtype, shape) for path, (_, dtype, shape) in noted[item].items()}
            if _described(tree) != saved:
                raise ValueError("its arrays have other names, shapes or dtypes than in the notes")
    return tree


def _described(tree: PyTree) -> dict[str, tuple[str, list[int]]]:
    """Dtype and shape of each array by path."""
    leaves = leaves_by_path(raw_shapes(tree))
    return {path: (str(x.dtype), list(x.shape)) for path, x in leaves.items()}


def _compare(checkpoint: Path, notes: Notes, item: str, wanted: PyTree) -> None:
    """Refuses arrays of other shapes or dtypes, which Orbax would cast or crop silently."""
    saved, expected = _described(item_shapes(checkpoint, notes, item)), _described(wanted)
    for path in sorted(expected.keys() | saved.keys()):
        theirs, ours = saved.get(path), expected.get(path)
        if theirs is None or ours is None:
            where = "the model" if theirs is None else "the checkpoint"
            raise WorkdirError(
                f"{item}{path} is only in {where}, not in both: the checkpoint of step "
                f"{notes.step} belongs to another model or optimizer."
            )
        if theirs != ours:
            raise WorkdirError(
                f"{item}{path} is {theirs[0]}{theirs[1]} in the checkpoint of step {notes.step} "
                f"and {ours[0]}{ours[1]} in the model."
            )


def _require_saved(checkpoint: Path, notes: Notes, item: str, tree: PyTree) -> None:
    """Refuses arrays that differ from what was saved."""
    if _ARRAYS in notes.metadata:
        saved, found = notes.metadata[_ARRAYS], described_arrays(tree)
    else:
        saved, found = notes.metadata.get(_FINGERPRINTS), fingerprints(tree)
    for path, value in found.items():
        # Notes without a seal may contain anything.
        try:
            same = saved[item][path] == value
        except (KeyError, TypeError):
            same = False
        if not same:
            raise CheckpointError(f"{checkpoint} is damaged: {item}{path} is not what was saved.")


@contextlib.contextmanager
def _read(checkpoint: Path, item: str) -> Iterator[None]:
    """Inside `with`, turns any exception of reading into one clear error."""
    try:
        yield
    except Exception as error:  # A damaged file can fail in any layer below.
        raise CheckpointError(
            f"{checkpoint} is damaged: its {item} cannot be read ({first_line(error)})."
        ) from error


def first_line(error: BaseException) -> str:
    """The message of an error as one line of limited length."""
    text = str(error).strip() or type(error).__name__
    line = text.splitlines()[0]
    # The cause is at the end of a long line.
    return line if len(line) <= 300 else f"{line[:100]} ... {line[-200:]}"
