"""Many processes that train together: who writes, who waits for whom, when all stop."""

import os
import signal
from types import FrameType, TracebackType
from typing import Any

import jax
from jax.experimental import multihost_utils


def is_first() -> bool:
    """Whether this process writes for all."""
    return jax.process_index() == 0


def meet(place: str) -> None:
    """Returns when all processes are here; at once where there is just one.

    Args:
        place: a name that all give.
    """
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(place)


def brought_together(tree: Any) -> Any:
    """Whole arrays in every process, from arrays that lie on the devices of all."""
    if jax.process_count() == 1:
        return tree
    return multihost_utils.process_allgather(tree, tiled=True)


class StopRequest:
    """Remembers the first SIGTERM or SIGINT while it is entered; the second acts as usual.

    Of many processes, one that gets a signal tells the others, and all stop at one step. JAX itself
    then waits for SIGTERM, and SIGINT is passed on as one.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._previous: dict[int, Any] = {}
        self._together = jax.process_count() > 1
        self._calls = 0

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
        handlers: dict[int, Any] = dict.fromkeys((signal.SIGTERM, signal.SIGINT), self._remember)
        if self._together:
            handlers = {signal.SIGINT: _pass_on}
        for number, handler in handlers.items():
            self._previous[number] = signal.signal(number, handler)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._restore()

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


def _pass_on(number: int, frame: FrameType | None) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
