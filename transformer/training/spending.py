"""Where the time of a run goes: what is spent on steps is its goodput."""

import contextlib
import threading
import time
from collections.abc import Iterator

import jax

from transformer.types import Scalars

# What a run does, in the order in which it is told.
KINDS = ("initialising", "compiling", "data", "steps", "evaluation", "checkpoints")
# The split of `metrics.jsonl`.
TIME = "time"
_COMPILING = "/jax/core/compile/"


class _Here(threading.local):
    """What is true of one thread."""

    in_background = False


class _Compiled:
    """Adds up what JAX says of tracing, lowering and compiling in this process."""

    def __init__(self) -> None:
        # Begin of each span of time, and the seconds of all spans before it.
        self._spans: list[tuple[float, float]] = []
        self.seconds = 0.0
        self.here = _Here()
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, duration: float, **_: object) -> None:
        if event.startswith(_COMPILING) and not self.here.in_background:
            self.add(duration)

    def add(self, duration: float) -> None:
        """Counts what has just ended after so many seconds."""
        begin = time.monotonic() - duration
        # What is compiled while something else is traced counts once.
        while self._spans and self._spans[-1][0] >= begin:
            self.seconds = self._spans.pop()[1]
        self._spans.append((begin, self.seconds))
        self.seconds += duration


_COMPILED = _Compiled()


@contextlib.contextmanager
def in_background() -> Iterator[None]:
    """What this thread compiles inside `with` takes no time of the run's."""
    _COMPILED.here.in_background = True
    try:
        yield
    finally:
        _COMPILED.here.in_background = False


@contextlib.contextmanager
def waiting_for_compiler() -> Iterator[None]:
    """Counts the time inside `with` as compiling."""
    begin = time.monotonic()
    try:
        yield
    finally:
        _COMPILED.add(time.monotonic() - begin)


class Spending:
    """Counts the seconds of a run by what it does; begins with `initialising`."""

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(KINDS, 0.0)
        self._kind = KINDS[0]
        self._since, self._compiled = time.monotonic(), _COMPILED.seconds

    @contextlib.contextmanager
    def on(self, kind: str) -> Iterator[None]:
        """Counts what happens inside `with` as this kind; compiling is counted as such anyway."""
        self._settle()
        before, self._kind = self._kind, kind
        try:
            yield
        finally:
            self._settle()
            self._kind = before

    def on_data(self) -> float:
        """The seconds spent on data so far."""
        self._settle()
        return self._seconds["data"]

    def scalars(self) -> Scalars:
        """Seconds by kind so far (`data_time`, ...), and the fraction of them spent on steps."""
        self._settle()
        total = sum(self._seconds.values())
        share = self._seconds["steps"] / total if total else 0.0
        return {"goodput": share} | {f"{kind}_time": self._seconds[kind] for kind in KINDS}

    def __str__(self) -> str:
        scalars = self.scalars()
        total = sum(self._seconds.values())
        parts = (f"{kind} {scalars[f'{kind}_time'] / max(total, 1e-9):.1%}" for kind in KINDS)
        return f"Time: {total:,.1f} s ({', '.join(parts)})."

    def _settle(self) -> None:
        now, compiled = time.monotonic(), _COMPILED.seconds
        compiling = min(compiled - self._compiled, now - self._since)
        self._seconds[self._kind] += now - self._since - compiling
        self._seconds["compiling"] += compiling
        self._since, self._compiled = now, compiled
