"""Many processes that train together: who writes, who waits for whom, when all stop."""

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

# Bytes of a message from the first process to the others.
_MESSAGE = 2000


def is_first() -> bool:
    """Whether this process writes for all."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Returns when all processes have come here; at once where there is just one.

    Args:
        name: of this place; the same in all processes.
    """
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def first_does(act: Callable[[], object]) -> None:
    """Has the first process do what one does for all; the others wait for it.

    Raises:
        Exception: whatever it raises there; in the others a WorkdirError with the same message, so
            that nobody waits for a process that has ended.
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
    """The answer of the first process, in all of them."""
    return bool(_broadcast("yes" if answer else ""))


def _broadcast(text: str) -> str:
    """The text of the first process in all of them, cut after 2,000 bytes."""
    if jax.process_count() == 1:
        return text
    sent = np.zeros(_MESSAGE, np.uint8)
    content = np.frombuffer(text.encode()[:_MESSAGE], np.uint8)
    sent[: len(content)] = content
    got = np.asarray(multihost_utils.broadcast_one_to_all(sent), np.uint8)
    return got.tobytes().rstrip(b"\0").decode("utf-8", "replace")


def gather(tree: Params) -> Params:
    """Whole arrays in every process, from arrays that are cut over the devices of all."""
    if jax.process_count() == 1:
        return tree
    return multihost_utils.process_allgather(tree, tiled=True)


class StopRequest:
    """Inside `with`, records the first SIGTERM or SIGINT; the second acts as usual.

    Of many processes, one that gets a signal tells the others, and all stop at one step. JAX itself
    then waits for SIGTERM, and SIGINT is passed on as one.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._together = jax.process_count() > 1
        self._calls = 0
        self._held = contextlib.ExitStack()

    @property
    def exit_code(self) -> int:
        """What the shell expects of a process ended by the signal: 143 or 130; 0 without one."""
        return 0 if self.signal is None else 128 + self.signal

    def asked(self) -> bool:
        """Whether to stop now; every process asks as often as the others."""
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
    """Gives SIGTERM back to Python's handler: with several processes JAX has taken it over."""
    if jax.process_count() > 1:
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM) or signal.SIG_DFL)


def _pass_on(number: int, frame: FrameType | None) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
