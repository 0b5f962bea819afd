"""The cache between runs, under `~/.cache`.

Each file ends with the SHA-256 of its content, which is checked whenever the file is opened: a
damaged file is made again. If the folder cannot be written, everything works as with an empty
cache. Both cases are reported once, on stderr.
"""

import errno
import functools
import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from transformer.files import delete_leftovers, replacing

_DIGEST = hashlib.sha256
_SIZE = _DIGEST().digest_size
# Bytes that are read at once.
_BLOCK = 1 << 20


def cache_folder() -> Path | None:
    """The folder of the cache: `$XDG_CACHE_HOME/transformer`, by default under `~/.cache`.

    None if there is no home folder.
    """
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        return None
    return Path(base) / "transformer"


def read_entry(path: Path) -> bytes | None:
    """The content of a file of the cache; None if the file is missing or damaged."""
    try:
        whole = path.read_bytes()
    except OSError as error:
        return _missing(path, error)
    content, digest = whole[:-_SIZE], whole[-_SIZE:]
    if _DIGEST(content).digest() != digest:
        _say_damaged(path)
        return None
    return content


def is_whole(path: Path) -> bool:
    """Whether a file of the cache exists and is undamaged; reads it in small pieces.

    100 MB take 0.1 to 0.3 s on one core: a third of the time for hashing the text from which as
    many bytes of tokens are made.
    """
    digest = _DIGEST()
    try:
        with path.open("rb") as file:
            left = file.seek(0, os.SEEK_END) - _SIZE
            file.seek(0)
            while left > 0 and (block := file.read(min(left, _BLOCK))):
                digest.update(block)
                left -= len(block)
            if digest.digest() == file.read():
                return True
    except OSError as error:
        _missing(path, error)
        return False
    _say_damaged(path)
    return False


def write_entry(path: Path, write: Callable[["Hashing"], object]) -> bool:
    """Writes a file of the cache, and deletes parts that killed processes left beside it.

    Args:
        path: the path of the file; its folder is made.
        write: writes the content to the file that it gets.

    Returns:
        Whether the file could be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        delete_leftovers(path.parent)
        with replacing(path) as file:
            hashing = Hashing(file)
            write(hashing)
            file.write(hashing.digest.digest())
    except OSError as error:
        _say(f"The cache {path.parent} cannot be written ({error.strerror}): it is not used.")
        return False
    return True


class Hashing:
    """A file that hashes its content while it is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = _DIGEST()

    def write(self, content: bytes) -> int:
        """Appends bytes and returns their number."""
        self.digest.update(content)
        return self._file.write(content)


def _missing(path: Path, error: OSError) -> None:
    if error.errno not in (errno.ENOENT, errno.ENOTDIR):
        _say(f"The cache {path.parent} cannot be read ({error.strerror}): it is not used.")


def _say_damaged(path: Path) -> None:
    _say(f"{path} is damaged, and is made again.")


# Warns once in a process.
@functools.cache
def _say(text: str) -> None:
    if sys.stderr is not None:
        print(text, file=sys.stderr, flush=True)
