"""Sets of recordings with transcripts for training and validation, in any known layout.

The layouts are the files of `layouts/`: each has a `LAYOUT`, and no other file names it.
"""

import functools
import importlib
import pkgutil
from pathlib import Path
from typing import NamedTuple

import numpy as np

from transformer.data.audio import layouts
from transformer.data.audio.parts import Layout, Parts
from transformer.data.audio.transcribed import Recordings, SomeRecordings
from transformer.errors import DataError


class Transcribed(NamedTuple):
    """What a path holds.

    Attributes:
        train: the recordings for training.
        validation: those for validation; None if the path has none of its own.
        notes: sentences about what was left out.
    """

    train: Recordings
    validation: Recordings | None
    notes: tuple[str, ...]


def read_recordings(
    path: str | Path, sampling_rate: int, *, max_seconds: float = np.inf
) -> Transcribed:
    """The recordings of a folder or file, for training and for validation.

    Of a validation and a test part, the first is for validation; the other is not read.

    Args:
        path: the path, in one of the layouts of `layouts/`.
        sampling_rate: the wanted samples a second.
        max_seconds: longer recordings are left out, which a note says. Vectors of numbers are
            all kept, because nobody says how long each stands for.

    Raises:
        DataError: if there is nothing, something is damaged, or all recordings are too long.
        MissingDependencyError: if soundfile or soxr is not installed and needed.
    """
    parts = _parts(Path(path))
    if "train" not in parts.recordings:
        found = " and ".join(parts.recordings)
        raise DataError(f"{path} has recordings for {found}, but none for training.")
    notes = list(parts.notes)
    kept = functools.partial(_kept, parts, sampling_rate, max_seconds, notes)
    held_out = next((part for part in ("validation", "test") if part in parts.recordings), None)
    validation = None if held_out is None else kept(held_out)
    return Transcribed(kept("train"), validation, tuple(notes))


def read_evaluation_recordings(path: str | Path, sampling_rate: int) -> Recordings:
    """The recordings of a folder or file to evaluate a trained model on.

    Of several parts, the one for test is taken, else the one for validation, else all.

    Raises:
        DataError: see `read_recordings`.
        MissingDependencyError: see `read_recordings`.
    """
    parts = _parts(Path(path)).recordings
    return next(parts[name] for name in ("test", "validation", "train") if name in parts)(
        sampling_rate
    )


def _parts(path: Path) -> Parts:
    """The parts of a path in any known layout.

    Raises:
        DataError: if it has none of them.
    """
    known = _layouts()
    readable = "; ".join(layout.description for layout in known)
    if not path.exists():
        raise DataError(f"{path} does not exist. What can be read: {readable}.")
    try:
        for layout in known:
            parts = layout.read(path)
            if parts is not None:
                return parts
    except PermissionError as error:
        raise DataError(f"{error.filename} cannot be read: permission denied.") from None
    raise DataError(f"{path} is no set of recordings. What can be read: {readable}.")


@functools.cache
def _layouts() -> tuple[Layout, ...]:
    names = sorted(module.name for module in pkgutil.iter_modules(layouts.__path__))
    modules = [importlib.import_module(f"{layouts.__name__}.{name}") for name in names]
    return tuple(module.LAYOUT for module in modules)


def _kept(
    parts: Parts, sampling_rate: int, max_seconds: float, notes: list[str], part: str
) -> Recordings:
    """The recordings of a part that are not too long, and notes about the others."""
    recordings = parts.recordings[part](sampling_rate)
    if not len(recordings):
        raise DataError(f"{parts.where} has no recordings for {part}.")
    silent = sum(not text for text in recordings.transcripts)
    if silent:
        notes.append(f"{silent:,} recordings for {part} have an empty transcript.")
    if recordings.num_features is not None:
        return recordings
    short = np.flatnonzero(recordings.lengths <= max_seconds * sampling_rate)
    left = len(recordings) - len(short)
    if not left:
        return recordings
    if not len(short):
        raise DataError(
            f"{parts.where}: every recording for {part} is longer than {max_seconds:g} seconds: "
            f"cut them into sentences, or raise config.task.max_seconds."
        )
    notes.append(
        f"{left:,} of {len(recordings):,} recordings for {part} are longer than {max_seconds:g} "
        f"seconds and are left out."
    )
    return SomeRecordings(recordings, short.tolist())
