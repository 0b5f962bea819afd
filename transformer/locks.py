"""Locks on files that end with the process that holds them, however it ends.

The library `filelock` does not suffice: its native locks leave their files behind, and do not name
the process and host that hold them, which is needed because NFS frees the locks of a dead host
late.
"""

import contextlib
import datetime
import errno
import importlib
import importlib.util
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

# None on systems without it, such as Windows.
fcntl = importlib.import_module("fcntl") if importlib.util.find_spec("fcntl") else None

# Errors by which systems and file systems report that they have no locks.
_NONE = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
# Longer notes about a lock's holder are not ours.
_NOTE = 300

# File descriptors of the locks that this process holds.
_held: set[int] = set()


class LockedError(Exception):
    """Another process holds the lock; the message says who, if that is known.

    Attributes:
        other_host: whether the holder is on another host; the locks of a dead host become free only
            after a while.
    """

    def __init__(self, holder: str, *, other_host: bool) -> None:
        super().__init__(holder)
        self.other_host = other_host


class NoLocksError(Exception):
    """There are no locks here; the message says why."""


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = False, keep: bool = False) -> Iterator[None]:
    """Holds the lock on a file inside the `with` block; the file is made and deleted for it.

    It is a lock of the kernel (flock). On one host it holds on every local file system of Linux and
    macOS. On NFS, Linux turns it into a lock of the server: it holds between hosts with version 4,
    and with version 3 if lockd runs, unless NFS is mounted with `nolock` or `local_lock`; the
    server frees the locks of a dead host after its lease (usually 90 seconds). Lustre needs the
    mount option `flock`, and otherwise reports that it has no locks.

    Args:
        path: the path of the file; its folder exists. The file names the holder of the lock.
        wait: waits for the lock instead of refusing.
        keep: does not delete the file.

    Raises:
        LockedError: if another process, or another part of this one, holds it.
        NoLocksError: if the system or the file system has no locks.
        OSError: if the file cannot be opened.
    """
    handle = _opened(path, wait)
    try:
        since = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
        note = f"{socket.gethostname()} {os.getpid()} since {since}\n".encode()
        # The lock holds even if the disk is full.
        with contextlib.suppress(OSError):
            os.ftruncate(handle, 0)
            os.pwrite(handle, note, 0)
        yield
    finally:
        # Deleted while the lock is held: others who have opened it see that the path has changed.
        if not keep:
            with contextlib.suppress(OSError):
                path.unlink()
        _close(handle)


def _opened(path: Path, wait: bool) -> int:
    """A file descriptor that holds the lock on the file at this path."""
    if fcntl is None:
        raise NoLocksError("this system has no flock")
    while True:
        # Opened for writing, since NFS needs that for exclusive locks; links are not followed.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        handle = os.open(path, flags, 0o666)
        _held.add(handle)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError(errno.EISDIR, "is no file", str(path))
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            # The former holder may have deleted the file since it was opened.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), path.stat()):
                    return handle
        except BlockingIOError:
            note = os.pread(handle, _NOTE, 0).decode("utf-8", "replace")
            _close(handle)
            raise _locked_by(note) from None
        except BaseException as error:
            _close(handle)
            if isinstance(error, OSError) and error.errno in _NONE:
                # The file is empty, and would only keep its folder from being empty.
                with contextlib.suppress(OSError):
                    path.unlink()
                raise NoLocksError(error.strerror) from None
            raise
        _close(handle)


def _close(handle: int) -> None:
    _held.discard(handle)
    os.close(handle)


def _locked_by(note: str) -> LockedError:
    """The error that names a lock's holder, read from the note in its file."""
    words = note.strip().split(" ")
    if len(words) < 4 or words[2] != "since":
        return LockedError("another process", other_host=False)
    host, pid, _, *since = words
    holder = f"process {pid} on {host}, since {' '.join(since)}"
    return LockedError(holder, other_host=host != socket.gethostname())


def _close_in_fork() -> None:
    # The lock belongs to the parent; a copy of the descriptor in a child would outlive it.
    for handle in _held:
        with contextlib.suppress(OSError):
            os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_fork)
