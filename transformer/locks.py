"""Locks on files, which end with the process that holds them, however that ends.

Not by the library `filelock`: its native locks leave their files behind, and do not say which
process of which host holds them, as is needed where NFS frees the locks of a dead host late.
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

# How systems and file systems say that they have no locks.
_NONE = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
# Longer notes of who holds a lock are not ours.
_NOTE = 300

# Descriptors of the locks that this process holds.
_held: set[int] = set()


class LockedError(Exception):
    """Another process holds the lock; the message says who, if that is known.

    Attributes:
        other_host: whether it is on another host, which may be dead for a while before its locks
            are free.
    """

    def __init__(self, holder: str, *, other_host: bool) -> None:
        super().__init__(holder)
        self.other_host = other_host


class NoLocksError(Exception):
    """There are no locks here; the message says why."""


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = False, keep: bool = False) -> Iterator[None]:
    """Holds the lock on a file while entered; the file is made for it, and deleted afterwards.

    It is a lock of the kernel (flock). On one host it holds on every local file system of Linux and
    macOS. On NFS Linux makes it a lock of the server: between hosts it holds with version 4, and
    with version 3 where lockd runs, unless it is mounted with `nolock` or `local_lock`; the server
    frees what a dead host held after its lease (usually 90 seconds). Lustre wants the mount option
    `flock`, and says otherwise that it has none.

    Args:
        path: of the file; its folder exists. It says for people who holds the lock.
        wait: returns when the lock can be had, rather than refusing.
        keep: leaves the file there.

    Raises:
        LockedError: if another process, or another place of this one, holds it.
        NoLocksError: if the system or the file system has no locks.
        OSError: if the file cannot be opened.
    """
    handle = _opened(path, wait)
    try:
        since = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
        note = f"{socket.gethostname()} {os.getpid()} since {since}\n".encode()
        # A full disk does not keep anybody from holding a lock.
        with contextlib.suppress(OSError):
            os.ftruncate(handle, 0)
            os.pwrite(handle, note, 0)
        yield
    finally:
        # While it is held: whoever has opened it since sees that it is not this file any more.
        if not keep:
            with contextlib.suppress(OSError):
                path.unlink()
        _close(handle)


def _opened(path: Path, wait: bool) -> int:
    """A descriptor that holds the lock on the file that has this path now."""
    if fcntl is None:
        raise NoLocksError("this system has no flock")
    while True:
        # To be written, as NFS locks nothing else exclusively; no link of a stranger is followed.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        handle = os.open(path, flags, 0o666)
        _held.add(handle)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError(errno.EISDIR, "is no file", str(path))
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            # Whoever held it may have deleted it since it was opened.
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
                # It says nothing, and would be in the way of who wants an empty folder.
                with contextlib.suppress(OSError):
                    path.unlink()
                raise NoLocksError(error.strerror) from None
            raise
        _close(handle)


def _close(handle: int) -> None:
    _held.discard(handle)
    os.close(handle)


def _locked_by(note: str) -> LockedError:
    """The error that names the holder of a lock, from the note in its file."""
    words = note.strip().split(" ")
    if len(words) < 4 or words[2] != "since":
        return LockedError("another process", other_host=False)
    host, pid, _, *since = words
    holder = f"process {pid} on {host}, since {' '.join(since)}"
    return LockedError(holder, other_host=host != socket.gethostname())


def _close_in_fork() -> None:
    # The lock stays with the parent; with a copy of the descriptor it would outlive it.
    for handle in _held:
        with contextlib.suppress(OSError):
            os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_fork)
