"""Traces of some steps, for XProf and Perfetto, and the operations that took the time."""

import collections
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import jax
from jax.profiler import ProfileData, ProfileOptions
from jaxtyping import Array, PyTree

from transformer.checks import whole_number
from transformer.errors import ConfigError
from transformer.training.metrics import Say

FOLDER = "profile"
# The number of operations that are listed.
_LISTED = 10


class Span(NamedTuple):
    """The steps to trace: `count` of them, after step `start`."""

    start: int
    count: int

    @classmethod
    def of(cls, text: str) -> "Span":
        """Reads `STEP:COUNT`.

        Raises:
            ConfigError: if it is something else.
        """
        start, _, count = text.partition(":")
        numbers = whole_number(start), whole_number(count)
        if numbers[0] is None or numbers[1] is None or numbers[0] < 0 or numbers[1] < 1:
            raise ConfigError(
                f"--profile is {text!r}: write STEP:COUNT, such as 100:5 for five steps after step "
                f"100."
            )
        return cls(numbers[0], numbers[1])


class Profiler:
    """Traces a span of steps into the folder of a run."""

    def __init__(self, span: Span, workdir: Path, total: int, say: Say) -> None:
        """Begins nothing yet.

        Args:
            span: the steps to trace.
            workdir: the run folder.
            total: the number of steps of the run.
            say: prints where the trace is, and the operations that took the time.

        Raises:
            ConfigError: if the run has fewer steps.
        """
        if span.start + span.count > total:
            raise ConfigError(
                f"--profile={span.start}:{span.count} ends after step {span.start + span.count}, "
                f"and the run has {total} steps."
            )
        self._span, self._folder, self._say = span, workdir / FOLDER, say
        self._runs = False

    def next_stop(self, step: int) -> int | None:
        """The next step at which the trace begins or ends; None if there is none."""
        stops = (self._span.start, self._span.start + self._span.count)
        return next((stop for stop in stops if stop > step), None)

    def at(self, step: int, state: PyTree[Array]) -> None:
        """Begins or ends the trace, if this is the step for it; the devices finish first."""
        if step == self._span.start:
            jax.block_until_ready(state)
            options = ProfileOptions()
            # Python's own calls would be most of the file.
            options.python_tracer_level = 0
            jax.profiler.start_trace(
                self._folder, create_perfetto_trace=True, profiler_options=options
            )
            self._runs = True
        elif self._runs and step >= self._span.start + self._span.count:
            jax.block_until_ready(state)
            self.close()
            self._say(f"Trace of {self._span.count} steps: {self._folder} (for XProf or Perfetto).")
            for line in _table(self._folder):
                self._say(line)

    def close(self) -> None:
        """Ends the trace, if it runs."""
        if self._runs:
            self._runs = False
            jax.profiler.stop_trace()


def _table(folder: Path) -> list[str]:
    """The operations that took most of the time, with their shares."""
    (*_, newest) = sorted(folder.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    spent = operations(ProfileData.from_file(str(newest)))
    total = sum(spent.values())
    longest = sorted(spent.items(), key=lambda pair: -pair[1])[:_LISTED]
    return [
        f"  {nanoseconds / total:6.1%}  {nanoseconds / 1e6:9.2f} ms  {name}"
        for name, nanoseconds in longest
    ]


def operations(data: ProfileData) -> dict[str, float]:
    """Nanoseconds of each operation of compiled programs, without those it calls."""
    found: dict[str, float] = {}
    for plane in data.planes:
        for line in plane.lines:
            events = [
                (float(event.start_ns), float(event.start_ns + event.duration_ns), event.name)
                for event in line.events
                if any(name == "hlo_op" for name, _ in event.stats)
            ]
            for name, nanoseconds in alone(events).items():
                found[name] = found.get(name, 0.0) + nanoseconds
    return found


def alone(events: Iterable[tuple[float, float, str]]) -> dict[str, float]:
    """The time of each name without the events inside of its own.

    Args:
        events: begin, end and name of what one thread did.
    """
    found: dict[str, float] = collections.defaultdict(float)
    around: list[tuple[float, str]] = []
    for begin, end, name in sorted(events, key=lambda event: (event[0], -event[1])):
        while around and around[-1][0] <= begin:
            around.pop()
        found[name] += end - begin
        if around:
            found[around[-1][1]] -= end - begin
        around.append((end, name))
    return dict(found)
