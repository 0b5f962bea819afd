"""Files written so that whoever reads them finds the old content or the new, never a part."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file beside `path`, which takes its place when the block ends without an error.

    Its content is on disk before it is renamed, and the rename before this returns: neither a kill
    nor a power failure leaves a part of it under the name. Two processes that write at once do not
    meet; the last one to finish wins.

    Args:
        path: of the file; its folder exists.

    Raises:
        OSError: if it cannot be written; nothing is left behind, and what was there is kept.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.", suffix=".part")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.chmod(_usual_mode(path))
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _synchronize_folder(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a small file at once; not at all if it has this content.

    Raises:
        OSError: if it cannot be written; what was there is kept.
    """
    with contextlib.suppress(OSError):
        if path.stat().st_size == len(content) and path.read_bytes() == content:
            return
    with replacing(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Writes a small file of UTF-8 at once; not at all if it has this content.

    Raises:
        OSError: if it cannot be written; what was there is kept.
    """
    write_bytes(path, text.encode("utf-8"))


def write_json(
    path: Path, content: Any, *, indent: int | None = 2, sort_keys: bool = False
) -> None:
    """Writes a value as JSON at once, its letters as they are; not at all if it is there.

    Raises:
        OSError: if it cannot be written; what was there is kept.
    """
    text = json.dumps(content, indent=indent, sort_keys=sort_keys, ensure_ascii=False)
    write_text(path, f"{text}\n")


def _usual_mode(path: Path) -> int:
    """The mode of the file that is replaced, or that of a new one; temporary ones are private."""
    try:
        return path.stat().st_mode & 0o777
    except OSError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask


def _synchronize_folder(folder: Path) -> None:
    # Some file systems (and Windows) do not open folders: they are as safe as they can be.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
