"""File systems of a campaign's own: small ones that fill up, and ones that cannot be written.

They are mounted in a name space of this process alone and end with it. That takes root, or a kernel
that gives users name spaces.
"""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

_NEW_MOUNTS, _NEW_USER = 0x00020000, 0x10000000
_READ_ONLY, _REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 1, 32, 4096, 16384, 1 << 18
_DETACH = 2


def begin() -> bool:
    """Gives this process mounts of its own; says whether it may have them."""
    try:
        libc, user, group = _libc(), os.getuid(), os.getgid()
        if user and libc.unshare(_NEW_USER):
            return False
        if user:
            Path("/proc/self/setgroups").write_text("deny", "ascii")
            Path("/proc/self/uid_map").write_text(f"0 {user} 1", "ascii")
            Path("/proc/self/gid_map").write_text(f"0 {group} 1", "ascii")
        if libc.unshare(_NEW_MOUNTS):
            return False
        _mount("none", "/", "", _RECURSIVE | _PRIVATE)
    except (OSError, AttributeError):
        return False
    return True


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[None]:
    """A disk of this size at a folder, while entered."""
    _mount("tmpfs", str(folder), "tmpfs", 0, f"size={kilobytes}k")
    with _ended(folder):
        yield


def enlarge(folder: Path, kilobytes: int) -> None:
    """Gives a small disk another size."""
    _mount("tmpfs", str(folder), "tmpfs", _REMOUNT, f"size={kilobytes}k")


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing can be written below a folder while entered, not even by root."""
    _mount(str(folder), str(folder), "", _BIND)
    with _ended(folder):
        _mount("none", str(folder), "", _BIND | _REMOUNT | _READ_ONLY)
        yield


@contextlib.contextmanager
def _ended(folder: Path) -> Iterator[None]:
    try:
        yield
    finally:
        _libc().umount2(os.fsencode(folder), _DETACH)


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    names = [os.fsencode(name) for name in (source, target, kind)]
    if _libc().mount(*names, ctypes.c_ulong(flags), os.fsencode(options)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
