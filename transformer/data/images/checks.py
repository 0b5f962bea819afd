"""Decodes every image file once to find broken ones, and remembers the results."""

import concurrent.futures
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from transformer.caches import cache_folder, read_entry, write_entry
from transformer.data.images.decoding import DecodeError, decode, read_content, require_pillow
from transformer.progress import counting

# The number of files that the threads get at once: small, so that interrupts act soon.
_BLOCK = 256

# Increased when the remembered facts or the decoding of images change.
_VERSION = 3


class Checked(NamedTuple):
    """The facts about a file.

    Attributes:
        kind: the kind of image, as in `Decoded`; empty if it is broken.
        content: SHA-256 of its bytes, hexadecimal; empty if it is broken.
        problem: why it is broken; empty if it is not.
    """

    kind: str
    content: str
    problem: str


class _Known(NamedTuple):
    """A file as it was when it was decoded.

    Attributes:
        size: in bytes.
        modified: time of the last change of its content, in nanoseconds, which can be set at will.
        changed: time of the last change of anything, in nanoseconds, which cannot.
        kind: the kind of image.
        content: hash of its bytes.
    """

    size: int
    modified: int
    changed: int
    kind: str
    content: str


def check_images(root: Path, files: Sequence[str]) -> list[Checked]:
    """Decodes every file that has not been decoded before, with threads.

    The facts about good files are kept in the cache folder, by names, sizes and times of files. If
    the cache cannot be read or written, all files are decoded.

    Args:
        root: folder that all are in.
        files: the path of each below it.

    Raises:
        MissingDependencyError: if Pillow is not installed.
    """
    version = f"{_VERSION}, Pillow {require_pillow().__version__}"
    memory = _memory_path(root)
    known = _remembered(memory, version)
    fresh: dict[str, _Known] = {}

    def check(file: str) -> Checked:
        path = root / file
        try:
            state = path.stat()
            times = state.st_size, state.st_mtime_ns, state.st_ctime_ns
            old = known.get(file)
            if old is None or old[:3] != times:
                content = read_content(path)
                digest = hashlib.sha256(content).hexdigest()
                # In colour, to which every image can be converted.
                old = fresh[file] = _Known(*times, decode(content, 3).kind, digest)
        except OSError as error:
            return Checked("", "", f"{error.strerror}.")
        except DecodeError as error:
            return Checked("", "", str(error))
        return Checked(old.kind, old.content, "")

    found: list[Checked] = []
    # What Python reads and Pillow decodes, other threads need not wait for.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
        try:
            with counting(len(files), "checked", "images") as update:
                for start in range(0, len(files), _BLOCK):
                    found += threads.map(check, files[start : start + _BLOCK])
                    update(len(found))
        finally:
            # Also after an interrupt: the next check continues from here.
            if fresh:
                known |= fresh
                # Files that are no longer there are forgotten.
                _remember(memory, version, {file: known[file] for file in files if file in known})
    return found


def _memory_path(root: Path) -> Path | None:
    """Where the files of a folder are remembered; None if there is no place for it."""
    folder = cache_folder()
    if folder is None:
        return None
    try:
        name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:32]
    except (OSError, RuntimeError):
        # A loop of links.
        return None
    return folder / "images" / f"{name}-{_VERSION}.json"


def _remembered(memory: Path | None, version: str) -> dict[str, _Known]:
    """The remembered facts; none if the file is damaged or of another version."""
    entry = None if memory is None else read_entry(memory)
    if entry is None:
        return {}
    try:
        content = json.loads(entry)
        if content["version"] != version:
            return {}
        return {file: _as_known(entry) for file, entry in content["files"].items()}
    # Any content of the file must be harmless.
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def _as_known(entry: Iterable[object]) -> _Known:
    """One entry of the memory.

    Raises:
        TypeError: if it is none.
    """
    known = _Known(*entry)
    if not all(isinstance(value, kind) for value, kind in zip(known, _KINDS, strict=True)):
        raise TypeError(entry)
    return known


_KINDS = tuple(_Known.__annotations__.values())


def _remember(memory: Path | None, version: str, known: dict[str, _Known]) -> None:
    """Writes the memory, if that is possible."""
    if memory is not None:
        content = json.dumps({"version": version, "files": known}).encode()
        write_entry(memory, lambda file: file.write(content))
