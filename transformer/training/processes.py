"""Several processes that train together: who writes, who waits, and when all stop."""

import contextlib
import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType

import jax
import numpy as np
from jax.experimental import multihost_utils

from transformer import signals
from transformer.errors import WorkdirError
from transformer.types import Params

# Size limit in bytes of a message from the first process to the others.
_MESSAGE = 2000


def is_first() -> bool:
    """Whether this is the first process, which writes for all."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits until all processes have reached this point; returns at once with a single process.

    Args:
        name: identifies this point; the same in all processes.
    """
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def first_does(act: Callable[[], object]) -> None:
    """Runs an action in the first process only; the others wait for it.

    Raises:
        Exception: whatever the action raises; the other processes raise a WorkdirError with the
            same message, so that none waits for a process that has ended.
    """
    failed: Exception | None = None
    if is_first():
        try:
            act()
        except Exception as error:
            failed = error
    said = _broadcast("" if failed is None else str(failed) or type(failed).__name__)
    if failed is not None:
        raise failed
    if said:
        raise WorkdirError(said)


def first_says(answer: bool) -> bool:
    """Returns the first process's answer in all processes."""
    return bool(_broadcast("yes" if answer else ""))


def _broadcast(text: str) -> str:
    """Returns the first process's text in all processes, cut after 2,000 bytes."""
    if jax.process_count() == 1:
        return text
    sent = np.zeros(_MESSAGE, np.uint8)
    content = np.frombuffer(text.encode()[:_MESSAGE], np.uint8)
    sent[: len(content)] = content
    got = np.asarray(multihost_utils.broadcast_one_to_all(sent), np.uint8)
    return got.tobytes().rstrip(b"\0").decode("utf-8", "replace")


def gather(tree: Params) -> Params:
    """Gathers arrays that are sharded over all devices to whole arrays in every process."""
    if jax.process_count() == 1:
        return tree
    return multihost_utils.process_allgather(tree, tiled=True)


class StopRequest:
    """Inside `with`, records the first SIGTERM or SIGINT; a second one acts as usual.

    With several processes, the one that gets a signal notifies the others and all stop at the same
    step. JAX handles SIGTERM for that purpose, and SIGINT is forwarded as SIGTERM.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._together = jax.process_count() > 1
        self._calls = 0
        self._held = contextlib.ExitStack()

    @property
    def exit_code(self) -> int:
        """The shell's exit code for the signal, 143 or 130; 0 without a signal."""
        return 0 if self.signal is None else 128 + self.signal

    def asked(self) -> bool:
        """Whether to stop now; all processes must call this equally often."""
        if self._together:
            self._calls += 1
            if multihost_utils.reached_preemption_sync_point(self._calls):
                self.signal = signal.SIGTERM
        return self.signal is not None

    def __enter__(self) -> "StopRequest":
        if self._together:
            self._held.enter_context(signals.first_goes_to(_pass_on, [signal.SIGINT]))
        else:
            self._held.enter_context(signals.first_goes_to(self._remember))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._held.close()
        take_back_signals()

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.signal = number


def take_back_signals() -> None:
    """Returns SIGTERM to Python's handler, because JAX takes it over with several processes."""
    if jax.process_count() > 1:
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM) or signal.SIG_DFL)


def _pass_on(number: int, frame: FrameType | None) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
