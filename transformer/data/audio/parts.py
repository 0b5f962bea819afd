"""What a layout of recordings defines, and what several layouts need."""

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from transformer.data.audio.files import FileRecordings, Utterance
from transformer.data.audio.transcribed import Recordings
from transformer.errors import DataError

# The names of folders of parts, in upper or lower case.
_PART_NAMES = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
}

# Gives recordings with the wanted samples a second.
Part = Callable[[int], Recordings]


class Parts(NamedTuple):
    """The parts of a set.

    Attributes:
        where: the path, for messages.
        recordings: the recordings for `train`, `validation` and `test`, or some of these; each is
            read when it is called.
        notes: sentences about what is not read.
    """

    where: str
    recordings: Mapping[str, Part]
    notes: tuple[str, ...] = ()


class Layout(NamedTuple):
    """A form in which sets of recordings are kept.

    Attributes:
        description: what it looks like, for messages.
        read: the parts of a path that exists; None if it has another layout.
    """

    description: str
    read: Callable[[Path], Parts | None]


def in_files(utterances: Sequence[Utterance]) -> Part:
    """Recordings in files, as a part."""
    return functools.partial(FileRecordings, utterances)


def folders_of_parts(folder: Path) -> dict[str, Path]:
    """The folders of parts in a folder, such as `train` and `dev`; empty if there are none.

    Raises:
        DataError: if two are for the same part.
    """
    found: dict[str, Path] = {}
    for path in sub_folders(folder):
        part = _PART_NAMES.get(path.name.lower())
        if part is not None and part in found:
            raise DataError(f"{found[part]} and {path} are both for {part}: keep one of them.")
        if part is not None:
            found[part] = path
    return found


def sub_folders(folder: Path) -> list[Path]:
    """The sub-folders that are not hidden, by name."""
    return sorted(path for path in visible(folder) if path.is_dir())


def visible(folder: Path) -> list[Path]:
    """What is in a folder, by name, without hidden things.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}.") from None


def files_below(folder: Path) -> Iterator[Path]:
    """All files in any depth, by name, without hidden ones. Links are followed, but not in cycles.

    Raises:
        DataError: if a folder cannot be read.
    """
    seen: set[str] = set()

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}.") from None

    for parent, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        here = os.path.realpath(parent)
        if here in seen:
            folders.clear()
            continue
        seen.add(here)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(files) if not name.startswith("."))


def file_inside(folder: Path, name: str, where: str) -> Path:
    """The file that a list in a folder names.

    Args:
        folder: the folder of the list.
        name: the name in the list.
        where: the line of the list, for messages.

    Raises:
        DataError: if the name leads out of the folder, or there is no such file.
    """
    named = Path(name)
    if named.is_absolute() or ".." in named.parts or "\0" in name:
        raise DataError(
            f"{where} names {name!r}, and only what is below {folder} is read: give names "
            f"relative to it, and put recordings or a link to their folder there."
        )
    path = folder / named
    if not path.is_file():
        raise DataError(f"{where} names {name!r}, and {path} does not exist.")
    return path
