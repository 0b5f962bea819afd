"""Reads the bytes of files, within the limits of `bounds`.

A plain file of a data set may have any size: reading it takes a few times its size. A compressed
file may expand to a far larger size, and a pipe may never end; so there are limits for those, and
each message says how to get around them.
"""

import errno
import gzip
import io
import lzma
import os
import stat
import zlib
from pathlib import Path

from transformer.data.reading import bounds
from transformer.data.reading.xz import XZ, XZFile
from transformer.errors import DataError

# The first bytes of a gzip file.
GZIP = b"\x1f\x8b"
# Bytes that are read at a time.
_BLOCK = 1 << 22


def read_content(path: Path, what: str, *, is_text: bool = False) -> bytes:
    """The bytes of a file, unpacked if it is compressed with gzip or xz.

    Args:
        path: the path of the file, or of a pipe.
        what: what is expected, for messages, such as "a text file".
        is_text: whether reading may end at the first NUL byte, which text does not contain.

    Raises:
        DataError: if it is missing, no file, damaged, or above a limit.
    """
    try:
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
            _require_end(state.st_mode, path)
            beginning = file.peek(len(XZ))
            if not beginning.startswith((GZIP, XZ)):
                return _read(file, path, _piped(state), is_text)
            # Of a pipe the size is not known.
            size = state.st_size if stat.S_ISREG(state.st_mode) else 0
            is_gzip = beginning.startswith(GZIP)
            with gzip.GzipFile(fileobj=file) if is_gzip else XZFile(file) as unpacked:
                program = "gunzip" if is_gzip else "unxz"
                return _read(unpacked, path, _unpacked(size, program), is_text)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path} does not exist: give the path of {what}.") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder: give the path of {what}.") from None
    except PermissionError:
        raise DataError(f"{path} cannot be read: permission denied.") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is a damaged gzip file: {error}") from None
    except lzma.LZMAError as error:
        raise DataError(f"{path} is a damaged xz file: {error}") from None
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
        if state.st_size > bounds.IMAGE_BYTES:
            reason = f"it has {state.st_size:,} bytes, more than {bounds.IMAGE_BYTES:,}"
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
        DataError: names the limit.
    """
    if unpacked > _room(size):
        raise DataError(f"{where} {_too_much(size)}: {hint}.")


def read_bounded(path: str | Path, most: int = bounds.TEXT_BYTES) -> bytes:
    """The bytes of a file of a published model, refused if it is larger than the limit.

    Raises:
        DataError: if it is missing, no file, or larger.
    """
    path = Path(path)
    try:
        # A device or a pipe has no end.
        if path.exists() and not path.is_file():
            raise DataError(f"{path} is no file.")
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    if len(content) > most:
        raise DataError(f"{path} has more than {most:,} bytes, which is the most that is read.")
    return content


def _require_end(mode: int, path: Path) -> None:
    """Refuses devices, many of which never end."""
    if stat.S_ISBLK(mode) or stat.S_ISCHR(mode):
        raise DataError(f"{path} is a device, not a file: give the path of a file.")


def _piped(state: os.stat_result) -> tuple[int | None, str]:
    """The limit (None for a file), and the message if it is exceeded."""
    if stat.S_ISREG(state.st_mode):
        return None, ""
    return (
        bounds.PIPED_BYTES,
        f"gives more than {bounds.PIPED_BYTES:,} bytes: write them into a file and give that",
    )


def _unpacked(size: int, program: str) -> tuple[int, str]:
    return _room(size), f"{_too_much(size)}: if it is meant, unpack it yourself with {program}"


def _too_much(size: int) -> str:
    return (
        f"becomes more than {_room(size):,} bytes when it is unpacked, far more than its size says"
    )


def _room(size: int) -> int:
    """The bytes to which a file may expand."""
    return max(bounds.UNPACKED_BYTES, bounds.EXPANSION * size)


def _read(
    file: io.BufferedIOBase, path: Path, most: tuple[int | None, str], is_text: bool
) -> bytes:
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
