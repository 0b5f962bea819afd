"""Atomic writing of files: readers find the old content or the new one, never a part.

A file that is being written has another name, which begins with a dot and ends with `.part`. Its
writer holds a lock on it, which ends with the process; so the next writer of the same file
recognises parts that a killed process left behind, and deletes them.
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
from typing import TYPE_CHECKING, BinaryIO

from transformer.errors import WorkdirError

if TYPE_CHECKING:
    import matplotlib.figure

# None on systems without it, such as Windows.
fcntl = importlib.import_module("fcntl") if importlib.util.find_spec("fcntl") else None
_PART = ".part"
# Characters of a name that its part's name keeps: at most 4 bytes each, and 255 in all.
_SHOWN = 48
# Without locks, a part that has not changed for this many seconds counts as left behind.
_ABANDONED = 24 * 3600
# How many seconds a folder is deleted again and again.
_PATIENCE = 5.0
# Errors of file systems that do not support fsync.
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yields a file beside `path` that replaces it when the block ends without an error.

    The content is on disk before the file is renamed, and the rename before this returns: neither a
    kill nor a power failure leaves a partial file under the name. Processes that write at the same
    time do not disturb each other; the last one to finish wins. A link stays, and its target is
    replaced. A path that is no regular file, such as `/dev/stdout`, is written directly.

    Args:
        path: the path of the file; its folder exists.

    Raises:
        OSError: if it cannot be written; nothing is left behind, and the old file is kept.
    """
    if _is_special(path):
        with path.open("wb") as file:
            yield file
        return
    with replacing_by_path(path) as part, part.open("wb") as file:
        yield file


@contextlib.contextmanager
def replacing_by_path(path: Path) -> Iterator[Path]:
    """As `replacing`, for libraries that write to a path instead of an open file.

    Args:
        path: the path of the file; its folder exists.

    Raises:
        WorkdirError: if the path is a device or a pipe.
        OSError: if it cannot be written; nothing is left behind, and the old file is kept.
    """
    # A link may lead to another disk, and files cannot be renamed across disks.
    path = Path(os.path.realpath(path))
    if _is_special(path):
        # A user who may write into /dev would replace a device by a file.
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
    """Yields a folder beside `path` that gets its name when the block ends without an error.

    The folder appears with its whole content or not at all. Processes that make the same folder do
    not disturb each other; the first one to finish wins.

    Args:
        path: the path of the folder; if it exists, it is empty. Its parents are made.

    Raises:
        WorkdirError: if something else has appeared at the path.
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
        _delete_folder(part)
    _synchronize_folder(path.parent)


def _delete_folder(path: Path) -> None:
    """Deletes a folder, also while threads of a write that has failed still make files in it."""
    until = time.monotonic() + _PATIENCE
    while path.exists():
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists() or time.monotonic() > until:
            return
        time.sleep(0.01)


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """Yields a folder inside `folder` that is deleted when the block ends.

    Raises:
        OSError: if it cannot be made.
    """
    handle, part = _new_part(folder / "new", is_folder=True)
    try:
        yield part
    finally:
        os.close(handle)
        _delete_folder(part)


@contextlib.contextmanager
def filling(folder: Path, *, keep: bool = False) -> Iterator[Path]:
    """Yields a folder inside `folder`; its files move up when the block ends without an error.

    Each file appears complete, and replaces one of the same name.

    Args:
        folder: the final folder of the files.
        keep: whether existing files stay instead.

    Raises:
        OSError: if they cannot be written; files still in the inner folder are deleted.
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
    """Writes a small file atomically; does nothing if it has this content already.

    Raises:
        OSError: if it cannot be written; the old file is kept.
    """
    with contextlib.suppress(OSError):
        if path.stat().st_size == len(content) and path.read_bytes() == content:
            return
    with replacing(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Writes a small UTF-8 file atomically; does nothing if it has this content already.

    Raises:
        OSError: if it cannot be written; the old file is kept.
    """
    write_bytes(path, text.encode("utf-8"))


def write_json(
    path: Path, content: object, *, indent: int | None = 2, sort_keys: bool = False
) -> None:
    """Writes a value as unescaped JSON atomically; does nothing if the file has it already.

    Raises:
        OSError: if it cannot be written; the old file is kept.
    """
    text = json.dumps(content, indent=indent, sort_keys=sort_keys, ensure_ascii=False)
    write_text(path, f"{text}\n")


def write_json_lines(path: Path, rows: Iterable[object]) -> None:
    """Writes values as JSON lines atomically, without escaping letters.

    Raises:
        OSError: if it cannot be written; the old file is kept.
    """
    write_text(path, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))


def write_picture(path: Path, figure: "matplotlib.figure.Figure", dpi: int = 130) -> None:
    """Writes a matplotlib figure atomically.

    Args:
        path: the path; its suffix decides the format.
        figure: what is drawn.
        dpi: dots per inch.

    Raises:
        OSError: if it cannot be written; the old file is kept.
    """
    with replacing(path) as file:
        figure.savefig(file, format=path.suffix.removeprefix("."), dpi=dpi)


def is_part(path: Path) -> bool:
    """Whether a name is one that files have while they are being written."""
    return path.name.startswith(".") and path.name.endswith(_PART)


def delete_leftovers(folder: Path, name: str = "") -> None:
    """Deletes parts that killed processes left behind and nobody is writing.

    Args:
        folder: the folder to clean.
        name: the name of the file or folder that they were writing; empty for all.
    """
    with contextlib.suppress(OSError):
        beginning = f".{name[:_SHOWN]}." if name else "."
        for entry in folder.iterdir():
            if entry.name.startswith(beginning) and entry.name.endswith(_PART):
                _delete_if_free(entry)


def _new_part(path: Path, *, is_folder: bool) -> tuple[int, Path]:
    """A new, empty part of `path`, and the open file that holds the lock on it."""
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
                # For example `/proc`, which refuses only now.
                raise WorkdirError(
                    f"{path} cannot be written: {path.parent} takes no files."
                ) from None
        if _locked(handle, wait=True) is None or part.exists():
            return handle, part
        # Another writer found it before it was locked, and deleted it.
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
    """Whether a lock, held until the file is closed, was taken; None if there are no locks."""
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
    """Raises the error that renaming a file would raise, with the final path."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "a folder is where a file should be", str(path))


def _is_special(path: Path) -> bool:
    """Whether the path is neither a file nor a folder, but a device or a pipe."""
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
    # Some file systems (and Windows) cannot open folders; nothing more can be done there.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
