"""Limits on how much of a file of texts, arrays or images is read.

`data.bounds` has the limits for published models, which are files of strangers.

A plain file may have any size: reading it takes a few times its size. A compressed file may expand
to a far larger size, and a file without size, such as a pipe, may never end; so there are limits
for those, and each message says how to get around them.
"""

import errno
import gzip
import io
import json
import os
import stat
import zlib
from pathlib import Path
from typing import Any

from transformer.errors import DataError

# Bytes to which any compressed file may expand.
MOST_UNPACKED = 1 << 26
# Beyond that, the largest ratio of expanded to compressed size. Texts and images expand 2 to 20
# times; only repetitions expand 1,000 times.
MOST_EXPANSION = 50
# Bytes that are read of a pipe.
MOST_PIPED = 1 << 30
# Bytes of a line of standard input.
MOST_LINE = 1 << 26
# Bytes of an image file.
MOST_IMAGE_FILE = 1 << 30
# The depth of nested JSON lists and objects.
MOST_DEPTH = 100
# Characters of the header of an array of NumPy, which says its type and its shape.
MOST_HEADER = 1024

# The first bytes of a gzip file.
GZIP = b"\x1f\x8b"
# Bytes that are read at a time.
_BLOCK = 1 << 22


def read_content(path: Path, what: str, *, is_text: bool = False) -> bytes:
    """The bytes of a file, unpacked if it is compressed with gzip.

    Args:
        path: of the file, or of a pipe.
        what: what is expected, for messages, such as "a text file".
        is_text: whether reading may end at the first NUL byte, which text does not contain.

    Raises:
        DataError: if it is missing, no file, damaged, or above a limit.
    """
    try:
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
            _require_end(state.st_mode, path)
            if not file.peek(len(GZIP)).startswith(GZIP):
                return _read(file, path, _piped(state), is_text)
            # Of a pipe the size is not known.
            size = state.st_size if stat.S_ISREG(state.st_mode) else 0
            with gzip.GzipFile(fileobj=file) as unpacked:
                return _read(unpacked, path, _unpacked(size), is_text)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path} does not exist: give the path of {what}.") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder: give the path of {what}.") from None
    except PermissionError:
        raise DataError(f"{path} cannot be read: permission denied.") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is a damaged gzip file: {error}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None


def read_image_content(path: Path) -> bytes:
    """The bytes of an image file.

    Raises:
        OSError: if it cannot be read, is no ordinary file, or too large.
    """
    with path.open("rb") as file:
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode):
            raise OSError(errno.EINVAL, "it is no ordinary file")
        if state.st_size > MOST_IMAGE_FILE:
            reason = f"it has {state.st_size:,} bytes, more than {MOST_IMAGE_FILE:,}"
            raise OSError(errno.EFBIG, reason)
        return file.read()


def require_worth(unpacked: int, size: int, where: str, hint: str) -> None:
    """Refuses a file that would expand far beyond its size.

    Args:
        unpacked: bytes of the expanded content.
        size: bytes of the file.
        where: the file, for the message.
        hint: how to get around the limit.

    Raises:
        DataError: naming the limit.
    """
    if unpacked > _unpacked(size)[0]:
        raise DataError(f"{where} {_too_much(size)}: {hint}.")


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: if it is none, or nested too deeply.
    """
    too_deep = f"it is nested too deeply, more than {MOST_DEPTH} levels"
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError(too_deep) from None
    level, depth = [content], 0
    while level := [one for one in level if isinstance(one, list | dict)]:
        depth += 1
        if depth > MOST_DEPTH:
            raise ValueError(too_deep)
        level = [part for one in level for part in (one.values() if isinstance(one, dict) else one)]
    return content


def _require_end(mode: int, path: Path) -> None:
    """Refuses devices, many of which never end."""
    if stat.S_ISBLK(mode) or stat.S_ISCHR(mode):
        raise DataError(f"{path} is a device, not a file: give the path of a file.")


def _piped(state: os.stat_result) -> tuple[int | None, str]:
    """The limit (None for a file), and the message if it is exceeded."""
    if stat.S_ISREG(state.st_mode):
        return None, ""
    return MOST_PIPED, f"gives more than {MOST_PIPED:,} bytes: write them into a file and give that"


def _unpacked(size: int) -> tuple[int, str]:
    limit = max(MOST_UNPACKED, MOST_EXPANSION * size)
    return limit, f"{_too_much(size)}: if it is meant, unpack it yourself with gunzip"


def _too_much(size: int) -> str:
    return (
        f"becomes more than {max(MOST_UNPACKED, MOST_EXPANSION * size):,} bytes when it is "
        f"unpacked, far more than its size says"
    )


def _read(file: Any, path: Path, most: tuple[int | None, str], is_text: bool) -> bytes:
    """The content of a file, up to a limit."""
    limit, refusal = most
    # Its content can be had without a copy.
    content = io.BytesIO()
    while block := file.read(_BLOCK):
        place = block.find(0) if is_text else -1
        # The first bytes tell UTF-16 and UTF-32, of which messages speak.
        content.write(block if place < 0 else block[: max(place + 1, 4)])
        if place >= 0:
            break
        if limit is not None and content.tell() > limit:
            raise DataError(f"{path} {refusal}.")
    return content.getvalue()
