"""The output of a run: `metrics.jsonl`, TensorBoard, a progress bar and a picture."""

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import rich.console
import rich.progress

from transformer.errors import WorkdirError
from transformer.files import write_bytes
from transformer.types import Json

FILE = "metrics.jsonl"
# File for lines that could not be read: nothing is deleted.
UNREADABLE = "metrics.unreadable.jsonl"
# How many line numbers a message lists.
_LISTED = 10
# Seconds after which TensorBoard sees new events.
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
        """Opens the files at `step`, dropping lines that a killed run wrote after it.

        Lines that cannot be read are moved to `metrics.unreadable.jsonl`.

        Args:
            workdir: the run folder.
            step: lines up to this step are kept.
            tensorboard: whether to write event files, too.
            say: reports lines that cannot be read.
            writes: False writes nothing; for processes other than the first.
            again: a split that will be written again at `step`.
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
        """Writes one line: `step`, `split`, then the scalars."""
        if self._file is not None:
            self._file.write(json.dumps({"step": step, "split": split, **scalars}) + "\n")
            self._file.flush()
        if self._events is not None:
            self._events.write(step, split, scalars)

    def flush(self) -> None:
        """Returns when everything is on disk, safe from a kill or a power failure."""
        if self._file is not None:
            os.fsync(self._file.fileno())
        if self._events is not None:
            self._events.flush()

    def close(self) -> None:
        """Flushes and closes the files."""
        if self._file is not None:
            self._file.close()
        if self._events is not None:
            self._events.close()


class _Events:
    """A TensorBoard event file.

    We do not use tensorboardX's writer: it hands events to a thread that cannot confirm that they
    are on disk, and two of its writers opened within one second share a file.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        if folder.exists() and not folder.is_dir():
            raise WorkdirError(f"{folder} is not a folder: move it away to make room for events.")
        folder.mkdir(exist_ok=True)
        suffix = f".{os.getpid()}.{time.time_ns()}"
        self._writer = EventsWriter(str(folder / "events"), suffix)
        # Makes TensorBoard drop what a killed run wrote after this step.
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


def read_metrics(workdir: Path, say: Say | None = None) -> list[Json]:
    """The readable lines of `metrics.jsonl`.

    Args:
        workdir: the run folder.
        say: reports unreadable lines, except an incomplete last one, which a run may be writing.
    """
    found = _read(workdir / FILE)
    unreadable = found.unreadable[:-1] if found.is_cut else found.unreadable
    if unreadable and say is not None:
        say(f"{workdir / FILE}: {_numbered(unreadable)} cannot be read: left out.")
    return [line for _, line in found.lines]


class _Found(NamedTuple):
    """The contents of a metrics file.

    Attributes:
        lines: bytes and value of each readable line.
        unreadable: number and bytes of each unreadable line.
        is_cut: whether the last unreadable line ends the file without a line feed.
    """

    lines: list[tuple[bytes, Json]]
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


def _parsed(raw: bytes) -> Json | None:
    """Parses a line of metrics, an object with a step, a split and numbers; None if invalid."""
    try:
        line = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict):
        return None
    step, split = line.get("step"), line.get("split")
    if type(step) is not int or step < 0 or type(split) is not str:
        return None
    # A measured loss may be infinite or NaN.
    numbers = (value for name, value in line.items() if name != "split")
    right = all(type(x) is float or (type(x) is int and abs(x) < 2**63) for x in numbers)
    return line if right else None


def _set_aside(unreadable: Sequence[tuple[int, bytes]], path: Path) -> None:
    """Appends lines to the file of unreadable lines, unless a killed process already did."""
    kept = path.read_bytes() if path.exists() else b""
    more = b"".join(raw + b"\n" for _, raw in unreadable)
    if not kept.endswith(more):
        write_bytes(path, kept + more)


def _numbered(unreadable: Sequence[tuple[int, bytes]]) -> str:
    """The line numbers as text for a message."""
    numbers = [str(number) for number, _ in unreadable]
    if len(numbers) == 1:
        return f"line {numbers[0]}"
    *others, last = numbers[:_LISTED]
    if len(numbers) > _LISTED:
        return f"lines {', '.join(numbers[:_LISTED])} and {len(numbers) - _LISTED} more"
    return f"lines {', '.join(others)} and {last}"


class Progress:
    """A live bar on a terminal, otherwise an occasional line; on stderr."""

    def __init__(self, total: int, *, shown: bool = True) -> None:
        """Creates the bar without showing it.

        Args:
            total: steps of the run.
            shown: False never shows anything; for processes other than the first.
        """
        self.console = rich.console.Console(stderr=True, highlight=False, quiet=not shown)
        self._total = total
        self._next_line = 0.0
        self._bar = None
        self._status: dict[str, str] = {}
        self._compiling = ""

    def start(self, step: int) -> None:
        """Begins counting at a step, not necessarily the first."""
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
        """Shows the step and its status."""
        if self.console.quiet:
            return
        self._status |= status
        text = self._text()
        if self._bar is not None:
            self._bar.update(self._task, completed=step, status=text)
            return
        now = time.monotonic()
        if now < self._next_line:
            return
        self._next_line = now + 5.0
        rate = (now - self._started) / max(1, step - self._first_step)
        self.say(f"step {step}/{self._total}  {text}  ETA {_clock(rate * (self._total - step))}")

    def compiling(self, names: str) -> None:
        """Shows what is being compiled; nothing if empty. Any thread may call this."""
        self._compiling = names
        if self._bar is not None:
            self._bar.update(self._task, status=self._text())

    def _text(self) -> str:
        parts = [f"{name} {value}" for name, value in self._status.items()]
        if self._compiling:
            parts.append(f"compiling {self._compiling}")
        return "  ".join(parts)

    def say(self, text: str) -> None:
        """Prints a line that stays."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False)
        elif not self.console.quiet:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Restores the terminal."""
        if self._bar is not None:
            self._bar.stop()


def _clock(seconds: float) -> str:
    """Hours (without limit), minutes and seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}"
