"""Files written so that whoever reads them finds the old content or the new, never a part.

What is being written has another name: it begins with a dot and ends with `.part`. Its writer holds
a lock on it, which ends with the process; so the next writer of the same file can tell what a
killed one has left behind, and deletes it.
"""

import contextlib
import errno
import importlib.util
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from transformer.errors import WorkdirError

# None on systems without it, such as Windows.
fcntl = importlib.import_module("fcntl") if importlib.util.find_spec("fcntl") else None
_PART = ".part"
# Characters of a name that the name of its part has: at most 4 bytes each, of 255 that there are.
_SHOWN = 48
# Seconds without a change, after which a part is taken for left behind where there are no locks.
_ABANDONED = 24 * 3600
# What file systems answer that cannot be told to write to disk at once.
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file beside `path`, which takes its place when the block ends without an error.

    Its content is on disk before it is renamed, and the rename before this returns: neither a kill
    nor a power failure leaves a part of it under the name. Two processes that write at once do not
    meet; the last one to finish wins. A link stays, and what it leads to is replaced. What is no
    file, such as `/dev/stdout`, is written to as it is.

    Args:
        path: of the file; its folder exists.

    Raises:
        OSError: if it cannot be written; nothing is left behind, and what was there is kept.
    """
    if _is_special(path):
        with path.open("wb") as file:
            yield file
        return
    with replacing_by_path(path) as part, part.open("wb") as file:
        yield file


@contextlib.contextmanager
def replacing_by_path(path: Path) -> Iterator[Path]:
    """As `replacing`, for what a library writes that wants a path and no open file.

    Args:
        path: of the file; its folder exists.

    Raises:
        WorkdirError: if there is a device or a pipe.
        OSError: if it cannot be written; nothing is left behind, and what was there is kept.
    """
    # A link may lead to another disk, and no file can be renamed across.
    path = Path(os.path.realpath(path))
    if _is_special(path):
        # Whoever may write into /dev would put a file in the place of a device.
        raise WorkdirError(f"{path} is a device or a pipe: give the path of a file.")
    handle, part = _new_part(path, is_folder=False)
    try:
        yield part
        with part.open("rb") as file:
            _synchronize(file.fileno())
        with contextlib.suppress(FileNotFoundError):
            part.chmod(path.stat().st_mode & 0o777)
        _require_no_folder(path)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)
    _synchronize_folder(path.parent)


@contextlib.contextmanager
def making_folder(path: Path) -> Iterator[Path]:
    """A folder beside `path`, which takes its name when the block ends without an error.

    Whatever is written into it is there as a whole or not at all. Two processes that make the same
    folder do not meet; the first one to finish wins.

    Args:
        path: of the folder; if it is there, it is empty. Its parents are made.

    Raises:
        WorkdirError: if something is there meanwhile.
        OSError: if it cannot be made. In any case, nothing is left behind.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = _new_part(path, is_folder=True)
    try:
        yield part
        try:
            part.replace(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            raise WorkdirError(
                f"{path} was empty and is no more: another process writes there, too. Give "
                f"another folder."
            ) from None
    finally:
        os.close(handle)
        shutil.rmtree(part, ignore_errors=True)
    _synchronize_folder(path.parent)


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A folder inside of `folder` that is deleted when the block ends.

    Raises:
        OSError: if it cannot be made.
    """
    handle, part = _new_part(folder / "new", is_folder=True)
    try:
        yield part
    finally:
        os.close(handle)
        shutil.rmtree(part, ignore_errors=True)


@contextlib.contextmanager
def filling(folder: Path, *, keep: bool = False) -> Iterator[Path]:
    """A folder inside of `folder`, whose files move there when the block ends without an error.

    Each of them is whole when it is there, and takes the place of one with its name.

    Args:
        folder: where the files are to be.
        keep: whether files that are there already stay instead.

    Raises:
        OSError: if they cannot be written; what is still in the inner folder is deleted.
    """
    with scratch(folder) as part:
        yield part
        for path in sorted(part.iterdir()):
            if keep and os.path.lexists(folder / path.name):
                continue
            with path.open("rb") as file:
                _synchronize(file.fileno())
            _require_no_folder(folder / path.name)
            path.replace(folder / path.name)
    _synchronize_folder(folder)


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


def write_json_lines(path: Path, rows: Iterable[Any]) -> None:
    """Writes values as JSON at once, each on a line, their letters as they are.

    Raises:
        OSError: if it cannot be written; what was there is kept.
    """
    write_text(path, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))


def write_picture(path: Path, figure: Any, dpi: int = 130) -> None:
    """Writes a figure of matplotlib at once.

    Args:
        path: its ending says the format.
        figure: a `matplotlib.figure.Figure`.
        dpi: dots of an inch.

    Raises:
        OSError: if it cannot be written; what was there is kept.
    """
    with replacing(path) as file:
        figure.savefig(file, format=path.suffix.removeprefix("."), dpi=dpi)


def is_part(path: Path) -> bool:
    """Whether a name is one of those under which files are written before they are whole."""
    return path.name.startswith(".") and path.name.endswith(_PART)


def delete_leftovers(folder: Path, name: str = "") -> None:
    """Deletes what killed processes were writing, and nobody writes any more.

    Args:
        folder: to look into.
        name: of the file or folder that they were writing; empty for all.
    """
    with contextlib.suppress(OSError):
        beginning = f".{name[:_SHOWN]}." if name else "."
        for entry in folder.iterdir():
            if entry.name.startswith(beginning) and entry.name.endswith(_PART):
                _delete_if_free(entry)


def _new_part(path: Path, *, is_folder: bool) -> tuple[int, Path]:
    """What becomes `path`, empty, and the open file that holds the lock on it."""
    delete_leftovers(path.parent, path.name)
    while True:
        part = path.with_name(f".{path.name[:_SHOWN]}.{secrets.token_hex(4)}{_PART}")
        if is_folder:
            part.mkdir()
            handle = os.open(part, os.O_RDONLY)
        else:
            try:
                handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            except FileNotFoundError:
                if not path.parent.is_dir():
                    raise
                # As `/proc`, which says so only now.
                raise WorkdirError(
                    f"{path} cannot be written: {path.parent} takes no files."
                ) from None
        if _locked(handle, wait=True) is None or part.exists():
            return handle, part
        # Another writer has looked at it before it was locked, and has deleted it.
        os.close(handle)


def _delete_if_free(part: Path) -> None:
    with contextlib.suppress(OSError):
        handle = os.open(part, os.O_RDONLY if part.is_dir() else os.O_RDWR)
        try:
            locked = _locked(handle, wait=False)
            if locked or (locked is None and time.time() - part.stat().st_mtime > _ABANDONED):
                if part.is_dir():
                    shutil.rmtree(part, ignore_errors=True)
                else:
                    part.unlink()
        finally:
            os.close(handle)


def _locked(handle: int, *, wait: bool) -> bool | None:
    """Whether a lock could be had, which ends when the file is closed; None if there are none."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _require_no_folder(path: Path) -> None:
    """The error that renaming a file would raise, with the path that it was to have."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "a folder is where a file should be", str(path))


def _is_special(path: Path) -> bool:
    """Whether there is something that is neither a file nor a folder: a device, or a pipe."""
    try:
        return path.exists() and not (path.is_file() or path.is_dir())
    except OSError:
        return False


def _synchronize(handle: int) -> None:
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise


def _synchronize_folder(folder: Path) -> None:
    # Some file systems (and Windows) do not open folders: they are as safe as they can be.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
