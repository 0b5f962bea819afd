"""Checks of paths that will be written, with the same messages everywhere."""

import errno
import os
import re
import tempfile
from pathlib import Path

from transformer.errors import WorkdirError

# Errors by which a file system refuses all writes, even to privileged users.
_CLOSED = (errno.EPERM, errno.EACCES, errno.EROFS, errno.EIO)
# The longest name of a file or folder in bytes, with the suffix it has while it is written.
_LONGEST_NAME = 255 - len("..part")


def whole_number(text: str) -> int | None:
    """The number in a text of a few plain digits; None for any other text."""
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def require_writable_file(path: Path, flag: str) -> None:
    """Refuses the path of a file that cannot be written.

    Args:
        path: the path of the file, which may be missing; its folder must exist.
        flag: the flag that gives the path.

    Raises:
        WorkdirError: naming the obstacle.
    """
    try:
        is_folder, there = path.is_dir(), path.parent.is_dir()
    except OSError as error:
        raise WorkdirError(f"{flag} is {path}: {error.strerror}. Give another.") from None
    if is_folder:
        raise WorkdirError(f"{flag} is {path}, which is a folder: give the name of a file.")
    if not there:
        raise WorkdirError(f"{flag} is {path}, in a folder that does not exist.")
    require_writable_folder(path.parent, flag)


def require_writable_folder(path: Path, flag: str = "--workdir") -> None:
    """Refuses the path of a folder that cannot be made, or cannot be written into.

    Args:
        path: the path of the folder, which may be missing.
        flag: the flag that gives the path.

    Raises:
        WorkdirError: naming the obstacle.
    """
    try:
        str(path.absolute()).encode("utf-8")
    except UnicodeEncodeError:
        # The checkpoint writer accepts no other names.
        raise WorkdirError(f"{str(path)!r} is not UTF-8: give another {flag}.") from None
    for place in (path.absolute(), *path.absolute().parents):
        try:
            # A broken link exists, so no folder can be made at its path.
            place.lstat()
            place.stat()
        except NotADirectoryError:
            continue
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not place.is_symlink():
                continue
            raise WorkdirError(
                f"{place} cannot be a folder: {error.strerror}. Give another {flag}."
            ) from None
        if not place.is_dir():
            raise WorkdirError(f"{place} is a file, not a folder: give another {flag}.")
        if not os.access(place, os.W_OK | os.X_OK):
            raise WorkdirError(f"{place} cannot be written: give another {flag}.")
        try:
            for part in path.absolute().relative_to(place).parts:
                if len(os.fsencode(part)) > _LONGEST_NAME:
                    raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
            _try_to_write(place, beside=place != path.absolute())
        except OSError as error:
            what = place if error.errno in _CLOSED else path
            raise WorkdirError(
                f"{what} cannot be written: {error.strerror}. Give another {flag}."
            ) from None
        return


def _try_to_write(place: Path, *, beside: bool) -> None:
    """Writes a temporary file, which other processes cannot see unless it is `beside`.

    Raises:
        OSError: if nothing can be written.
    """
    nameless = getattr(os, "O_TMPFILE", None)
    if beside:
        Path(tempfile.mkdtemp(dir=place, prefix=".writable-")).rmdir()
    elif nameless is not None:
        try:
            os.close(os.open(place, nameless | os.O_WRONLY))
        except OSError as error:
            # Not all systems have unnamed files.
            if error.errno in _CLOSED:
                raise


def require_plain_path(workdir: Path) -> None:
    r"""Refuses the path of a run folder that Orbax reads as a pattern, or as another path.

    Orbax does not find what it has saved below `runs[1]`, and saves below `runs/1` what belongs
    below `runs\1`.

    Raises:
        WorkdirError: naming the character.
    """
    path = workdir.absolute().as_posix()
    for character in "[*?\\":
        if character in path:
            raise WorkdirError(
                f"{path} has a {character!r}: no checkpoint can be stored at such a path. Give the "
                f"path of a folder without any of [ * ? \\"
            )
