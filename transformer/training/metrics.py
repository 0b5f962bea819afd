"""What a run writes and shows: `metrics.jsonl`, TensorBoard, a progress bar and a picture."""

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import rich.console
import rich.progress

from transformer.errors import WorkdirError
from transformer.files import write_bytes

FILE = "metrics.jsonl"
# Where lines go that cannot be read: nothing is deleted.
UNREADABLE = "metrics.unreadable.jsonl"
# How many of their numbers are told.
_TOLD = 10
# Seconds after which TensorBoard sees what is new.
_FLUSHED_EVERY = 30.0

Say = Callable[[str], None]


class MetricsWriter:
    """Appends scalars to `metrics.jsonl` and, if asked, to TensorBoard event files."""

    def __init__(
        self,
        workdir: Path,
        *,
        step: int,
        tensorboard: bool,
        say: Say,
        writes: bool = True,
        again: str = "",
    ) -> None:
        """Opens the files at `step`, dropping what a killed run wrote beyond it.

        Lines that cannot be read are moved to `metrics.unreadable.jsonl`.

        Args:
            workdir: the run folder.
            step: up to which lines are kept.
            tensorboard: whether to write event files, too.
            say: is told of lines that cannot be read.
            writes: False does nothing, in processes that are not the one that writes.
            again: a split that is about to be written again at `step`.
        """
        self._file = self._events = None
        if not writes:
            return
        path = workdir / FILE
        found = _read(path)
        if found.unreadable:
            _set_aside(found.unreadable, workdir / UNREADABLE)
            say(f"{path}: {_numbered(found.unreadable)} cannot be read; moved to {UNREADABLE}.")
        kept = (
            raw + b"\n"
            for raw, line in found.lines
            if line["step"] < step or (line["step"] == step and line["split"] != again)
        )
        write_bytes(path, b"".join(kept))
        self._file = path.open("a", encoding="utf-8")
        if tensorboard:
            self._events = _Events(workdir / "tensorboard", step)

    def write(self, step: int, split: str, scalars: Mapping[str, float]) -> None:
        """One line: `step`, `split`, then the scalars."""
        if self._file is not None:
            self._file.write(json.dumps({"step": step, "split": split, **scalars}) + "\n")
            self._file.flush()
        if self._events is not None:
            self._events.write(step, split, scalars)

    def flush(self) -> None:
        """Returns when all that was written is on disk: no kill, nor power failure, loses it."""
        if self._file is not None:
            os.fsync(self._file.fileno())
        if self._events is not None:
            self._events.flush()

    def close(self) -> None:
        """Writes out what is still in memory."""
        if self._file is not None:
            self._file.close()
        if self._events is not None:
            self._events.close()


class _Events:
    """A TensorBoard event file.

    Written by ourselves: tensorboardX hands events to a thread, which nobody can ask whether they
    are on disk, and two of its writers within one second write the same file.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        if folder.exists() and not folder.is_dir():
            raise WorkdirError(f"{folder} is no folder: move it away, so that events can go there.")
        folder.mkdir(exist_ok=True)
        suffix = f".{os.getpid()}.{time.time_ns()}"
        self._writer = EventsWriter(str(folder / "events"), suffix)
        # TensorBoard forgets what a killed run wrote beyond this step.
        log = SessionLog(status=SessionLog.START)
        self._writer.write_event(Event(step=step + 1, session_log=log))
        self.flush()

    def write(self, step: int, split: str, scalars: Mapping[str, float]) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        for name, value in scalars.items():
            summary = scalar(f"{split}/{name}", value)
            self._writer.write_event(Event(step=step, wall_time=time.time(), summary=summary))
        if time.monotonic() > self._next_flush:
            self.flush()

    def flush(self) -> None:
        self._writer.flush()
        self._next_flush = time.monotonic() + _FLUSHED_EVERY

    def close(self) -> None:
        self._writer.close()


def tensorboard_is_installed() -> bool:
    """Whether event files can be written."""
    return importlib.util.find_spec("tensorboardX") is not None


def read_metrics(workdir: Path, say: Say | None = None) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`, without those that cannot be read.

    Args:
        workdir: the run folder.
        say: is told of such lines, if there are any; not of a last one that is cut short, which a
            run may be about to write.
    """
    found = _read(workdir / FILE)
    told = found.unreadable[:-1] if found.is_cut else found.unreadable
    if told and say is not None:
        say(f"{workdir / FILE}: {_numbered(told)} cannot be read: left out.")
    return [line for _, line in found.lines]


class _Found(NamedTuple):
    """What a file of metrics holds.

    Attributes:
        lines: bytes and value of each line that can be read.
        unreadable: number and bytes of each that cannot.
        is_cut: whether the last of these is the end of the file, without a line feed.
    """

    lines: list[tuple[bytes, dict[str, Any]]]
    unreadable: list[tuple[int, bytes]]
    is_cut: bool


def _read(path: Path) -> _Found:
    try:
        parts = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return _Found([], [], False)
    lines, unreadable = [], []
    for number, raw in enumerate(parts, 1):
        line = _parsed(raw)
        if line is not None:
            lines.append((raw, line))
        elif raw.strip():
            unreadable.append((number, raw))
    return _Found(lines, unreadable, bool(unreadable) and unreadable[-1][0] == len(parts))


def _parsed(raw: bytes) -> dict[str, Any] | None:
    """A line of metrics; None if it is none: an object with a step, a split and numbers."""
    try:
        line = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict):
        return None
    step, split = line.get("step"), line.get("split")
    if type(step) is not int or step < 0 or type(split) is not str:
        return None
    # A loss may be infinite, or not a number: it was measured.
    numbers = (value for name, value in line.items() if name != "split")
    right = all(type(x) is float or (type(x) is int and abs(x) < 2**63) for x in numbers)
    return line if right else None


def _set_aside(unreadable: Sequence[tuple[int, bytes]], path: Path) -> None:
    """Adds lines to those that were kept before, unless a kill came between this and the rest."""
    kept = path.read_bytes() if path.exists() else b""
    more = b"".join(raw + b"\n" for _, raw in unreadable)
    if not kept.endswith(more):
        write_bytes(path, kept + more)


def _numbered(unreadable: Sequence[tuple[int, bytes]]) -> str:
    """The numbers of lines, for people."""
    numbers = [str(number) for number, _ in unreadable]
    if len(numbers) == 1:
        return f"line {numbers[0]}"
    *others, last = numbers[:_TOLD]
    if len(numbers) > _TOLD:
        return f"lines {', '.join(numbers[:_TOLD])} and {len(numbers) - _TOLD} more"
    return f"lines {', '.join(others)} and {last}"


class Progress:
    """A live bar on a terminal, a line now and then elsewhere; on stderr."""

    def __init__(self, total: int, *, shown: bool = True) -> None:
        """Shows nothing yet.

        Args:
            total: steps of the run.
            shown: False never shows anything, in processes that are not the one that reports.
        """
        self.console = rich.console.Console(stderr=True, highlight=False, quiet=not shown)
        self._total = total
        self._next_line = 0.0
        self._bar = None
        self._status: dict[str, str] = {}

    def start(self, step: int) -> None:
        """Begins to count, at a step that may not be the first."""
        self._started, self._first_step = time.monotonic(), step
        if self.console.is_terminal:
            self._bar = rich.progress.Progress(
                rich.progress.TextColumn("step {task.completed}/{task.total}"),
                rich.progress.BarColumn(),
                rich.progress.TextColumn("{task.fields[status]}"),
                rich.progress.TimeElapsedColumn(),
                rich.progress.TextColumn("ETA"),
                rich.progress.TimeRemainingColumn(),
                console=self.console,
            )
            self._task = self._bar.add_task("train", total=self._total, completed=step, status="")
            self._bar.start()

    def update(self, step: int, **status: str) -> None:
        """Shows the step and what is known at it."""
        if self.console.quiet:
            return
        self._status |= status
        text = "  ".join(f"{name} {value}" for name, value in self._status.items())
        if self._bar is not None:
            self._bar.update(self._task, completed=step, status=text)
            return
        now = time.monotonic()
        if now < self._next_line:
            return
        self._next_line = now + 5.0
        rate = (now - self._started) / max(1, step - self._first_step)
        self.say(f"step {step}/{self._total}  {text}  ETA {_clock(rate * (self._total - step))}")

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False)
        elif not self.console.quiet:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leaves the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()


def _clock(seconds: float) -> str:
    """Hours, however many, minutes and seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}"
