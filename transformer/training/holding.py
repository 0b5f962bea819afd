"""Locks a run folder: only one run may write there, with one process or several."""

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax

from transformer.checks import require_plain_path, require_writable_folder
from transformer.errors import WorkdirError
from transformer.files import delete_leftovers, is_part
from transformer.locks import LockedError, NoLocksError, locked
from transformer.training.processes import first_does

LOCK_FILE = ".lock"
# Seconds after which NFS has released the locks of a dead host (with a margin), and seconds between
# two attempts. A scheduler restarts a job on another host earlier than that.
_LEASE, _PAUSE = 100.0, 0.5
# The other processes wait for the first one in a collective operation with a timeout of 30 seconds.
_TOGETHER = 20.0


class HeldError(WorkdirError):
    """Another process is writing to the run folder."""


@contextlib.contextmanager
def holding(workdir: Path) -> Iterator[None]:
    """Inside `with`, keeps other runs from writing to a run folder; creates it if necessary.

    The first of several processes holds the lock for all of them. If the holder is on another host,
    this waits until a dead holder's lock would have expired; on the same host it does not wait.
    Half-written files of a killed run are deleted. An empty folder created here is removed again.

    Args:
        workdir: the run folder; `transformer.locks` says which processes the lock excludes there.
            On file systems without locks a warning is printed and nobody is kept out.

    Raises:
        HeldError: if another run holds it (a WorkdirError in processes other than the first).
        WorkdirError: if the folder cannot be created or written.
    """
    with contextlib.ExitStack() as held:
        first_does(lambda: _hold(workdir, held))
        yield


def is_empty(folder: Path) -> bool:
    """Whether a folder is missing or empty, not counting the lock and half-written files.

    Raises:
        OSError: if it cannot be read.
    """
    if not folder.exists():
        return True
    return all(path.name == LOCK_FILE or is_part(path) for path in folder.iterdir())


def _hold(workdir: Path, held: contextlib.ExitStack) -> None:
    require_plain_path(workdir)
    require_writable_folder(workdir)
    try:
        _make_and_lock(workdir, held)
        delete_leftovers(workdir)
    except LockedError as error:
        raise HeldError(
            f"{workdir} is in use by {error}: only one run can write there. Wait until it has "
            f"ended, or give another --workdir."
        ) from None
    except NoLocksError as error:
        print(
            f"warning: {error} where {workdir} is, so that nothing keeps a second run out of it: "
            f"see to it that there is none.",
            file=sys.stderr,
        )
    except OSError as error:
        raise WorkdirError(
            f"{error.filename or workdir} cannot be written: {error.strerror}. Give another "
            f"--workdir."
        ) from None


def _make_and_lock(workdir: Path, held: contextlib.ExitStack) -> None:
    """Acquires the lock; on exit, folders that were created for it are removed if empty."""
    begun, has_warned = time.monotonic(), False
    lease = _LEASE if jax.process_count() == 1 else min(_LEASE, _TOGETHER)
    while True:
        made = [path for path in (workdir, *workdir.parents) if not path.exists()]
        workdir.mkdir(parents=True, exist_ok=True)
        for folder in reversed(made):
            held.callback(_remove_if_empty, folder)
        try:
            held.enter_context(locked(workdir / LOCK_FILE))
            return
        except (LockedError, FileNotFoundError) as error:
            held.close()
            # The process that created the folder has just removed it; or the holder's host may be
            # dead and the file server does not know it yet.
            waits = isinstance(error, FileNotFoundError) or error.other_host
            if not waits or time.monotonic() - begun > lease:
                raise
            if isinstance(error, LockedError) and not has_warned:
                say = f"{workdir} is in use by {error}. Waiting {lease:.0f} s: it may be dead."
                print(say, file=sys.stderr, flush=True)
                has_warned = True
            time.sleep(_PAUSE)


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
