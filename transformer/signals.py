"""Signals end a process at any moment, silently, with the exit code that shells expect.

A Python handler runs only when the interpreter gets control. During a compilation that may be
minutes later, and an exception raised there can be swallowed, or shown with a traceback, by any
code in between. So nothing is raised: the process ends where it is. Its files are whole at any
moment and its locks end with it, so nothing is lost. A thread that the signal itself wakes ends the
process if the interpreter does not run the handler in time.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM)
# Seconds that the interpreter has to run the handler.
PATIENCE = 0.5

Handler = Callable[[int, FrameType | None], None]


class _Watch:
    """The thread that signals wake; a process has one, as it has one set of handlers."""

    def __init__(self) -> None:
        # The number of coming signals that another handler takes.
        self.spared = 0
        self._sockets: tuple[socket.socket, socket.socket] | None = None

    def begin(self) -> None:
        """Starts the thread, if it is not running."""
        if self._sockets is not None:
            return
        self._sockets = woken, wakes = socket.socketpair()
        wakes.setblocking(False)
        signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._look, args=(woken,), name="signals", daemon=True).start()

    def forget(self) -> None:
        """Resets the state in a forked process, which does not have the thread."""
        if self._sockets is not None:
            signal.set_wakeup_fd(-1)
            for one in self._sockets:
                one.close()
        self.spared, self._sockets = 0, None

    def _look(self, woken: socket.socket) -> None:
        while number := woken.recv(1):
            if self.spared:
                self.spared -= 1
            elif signal.getsignal(number[0]) is end:
                time.sleep(PATIENCE)
                _leave(number[0])


_watch = _Watch()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_watch.forget)


def take() -> None:
    """From now on SIGINT ends this process with exit code 130, and SIGTERM with 143.

    Does nothing in threads other than the main one, which get no signals.
    """
    if threading.current_thread() is threading.main_thread():
        for number in ENDING:
            signal.signal(number, end)
        _watch.begin()


@contextlib.contextmanager
def first_goes_to(handler: Handler, numbers: Sequence[int] = ENDING) -> Iterator[None]:
    """Inside `with`, the first signal calls a handler, and a second one acts as before.

    Args:
        handler: called by the main thread, between two instructions of Python.
        numbers: the numbers of these signals; others act as before.
    """
    before = {}

    def first(number: int, frame: FrameType | None) -> None:
        restore()
        handler(number, frame)

    def restore() -> None:
        for number, earlier in before.items():
            signal.signal(number, earlier)

    _watch.spared = 1
    try:
        for number in numbers:
            before[number] = signal.signal(number, first)
        yield
    finally:
        restore()
        _watch.spared = 0


def end(number: int, frame: FrameType | None) -> None:
    """Ends the process after flushing its output."""
    # Each error of the flush is ignored: the signal may have interrupted a flush itself.
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    _leave(number)


def _leave(number: int) -> None:
    if os.isatty(2):
        # Progress bars hide the cursor; show it again.
        os.write(2, b"\x1b[?25h\n")
    os._exit(128 + number)
