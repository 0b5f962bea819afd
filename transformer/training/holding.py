"""Who writes into a run folder: one run at a time, of one process or of several."""

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
# Seconds after which NFS frees the locks of a host that is dead, and some more, and between two
# tries. A job that a scheduler starts again elsewhere comes earlier than that.
_LEASE, _PAUSE = 100.0, 0.5
# Several processes wait for the first one in a collective operation, which gives up at 30 seconds.
_TOGETHER = 20.0


class HeldError(WorkdirError):
    """Another process writes into the run folder."""


@contextlib.contextmanager
def holding(workdir: Path) -> Iterator[None]:
    """Keeps others from writing into a run folder while entered; makes it if it does not exist.

    Of several processes the first one holds the lock, and the others belong to it. A holder on
    another host is waited for until it would be known to be dead, one on this host is not. What a
    killed one left half-written is deleted. A folder that was made for nothing is not left behind.

    Args:
        workdir: the run folder; `transformer.locks` says between whom the lock holds there. Where
            there are no locks, that is said and nobody is kept out.

    Raises:
        HeldError: if somebody else holds it (in other processes than the first, a WorkdirError).
        WorkdirError: if the folder cannot be made or written.
    """
    with contextlib.ExitStack() as held:
        first_does(lambda: _hold(workdir, held))
        yield


def is_empty(folder: Path) -> bool:
    """Whether there is nothing in a folder, or no folder: the lock and what is half-written aside.

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
    """Enters the lock, and before it what removes the folders that were made for it."""
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
            # Whoever had made the folder has just removed it again; or the holder is on a host that
            # may be dead, of which the file server does not know yet.
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
