"""The moments of a run, seen from inside its process: at any of them it can be sent a signal.

A moment is something that happens for the n-th time: a file of the run that is opened for writing,
renamed or deleted (whoever does it), a program that has been compiled, metrics that are written, an
evaluation or a save that begins. A first run without signals tells which there are and how long it
is from one to the next.
"""

import os
import random
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from tests.campaigns.frame import called
from transformer import runtime
from transformer.training.checkpoints import Checkpoints
from transformer.training.execution import Execution
from transformer.training.metrics import MetricsWriter

STAGES = ("start", "steps", "save", "commit", "evaluation", "finish")
# What Python says before it touches a file, and how many of its arguments are paths.
_FILE_EVENTS = {"open": 1, "os.rename": 2, "os.remove": 1, "os.mkdir": 1, "os.rmdir": 1}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
# Names that are new each time: of temporary files, with a time or a process in them.
_NEW_NAME = re.compile(r"\d{7,}|(?<=[.])\w{8}(?=[.]part)|\d+(?=[.]part)")
# Nobody waits longer for the next moment.
_LONGEST = 3.0


class Moment(NamedTuple):
    """Something that happened.

    Attributes:
        stage: one of `STAGES`.
        label: what it was.
        number: for which time in this process, from 0.
        gap: seconds to the next one.
    """

    stage: str
    label: str
    number: int
    gap: float


class Strike(NamedTuple):
    """Signals that a process is sent.

    Attributes:
        moment: at which.
        delay: seconds after it.
        number: of the signal.
        group: whether to all processes of its group.
        second: seconds later, and another signal; None leaves it at one.
    """

    moment: Moment
    delay: float
    number: int
    group: bool
    second: tuple[float, int] | None

    def __str__(self) -> str:
        whom = " to the group" if self.group else ""
        words = f"{signal.Signals(self.number).name}{whom}, {self.delay:.3f} s after the "
        words += f"{self.moment.number + 1}. {self.moment.label} ({self.moment.stage})"
        if self.second is None:
            return words
        return f"{words}, then {signal.Signals(self.second[1]).name} {self.second[0]:.3f} s later"


def drawn(moments: Sequence[Moment], stage: str, source: random.Random) -> Strike:
    """Signals at a random moment of a stage, or at any time up to the moment after it."""
    moment = source.choice([each for each in moments if each.stage == stage])
    delay = source.choice((0.0, source.uniform(0, moment.gap)))
    numbers = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
    number, second = source.choice(numbers), None
    if number != signal.SIGKILL and source.random() < 0.4:
        second = (source.choice((0.0, source.uniform(0, 0.3))), source.choice(numbers))
    return Strike(moment, delay, number, source.random() < 0.3, second)


def observed(name: str, *flags: str, folders: Mapping[str, Path], log: Path, strike: Strike | None):
    """Calls a script in this process, which was forked, and strikes it.

    Args:
        name: of the script.
        flags: its flags.
        folders: those whose files count, with short names for them.
        log: is written the signals that are sent, and without a strike all that happens.
        strike: what is sent when; None sends nothing.
    """
    _Observer(folders, log, strike).install()
    return called(name, *flags)


class _Observer:
    """Counts what happens in this process and sends the signals."""

    def __init__(self, folders: Mapping[str, Path], log: Path, strike: Strike | None) -> None:
        self._folders = {f"{path}{os.sep}": name for name, path in folders.items()}
        self._strike, self._counts, self._begun = strike, Counter(), False
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def install(self) -> None:
        """From here on. Signals wait until the script has taken them into its hands."""
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
        prepare = runtime.prepare_process

        def begin() -> None:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
            self._begun = True
            self._happened("begin")
            prepare()

        runtime.prepare_process = begin
        self._before(MetricsWriter, "write", lambda arguments: f"metrics of {arguments[2]}")
        self._before(Checkpoints, "save", lambda arguments: "save")
        self._before(Execution, "validate", lambda arguments: "evaluation")
        jax.monitoring.register_event_duration_secs_listener(self._timed)
        sys.addaudithook(self._audit)

    def _before(self, owner: Any, name: str, label: Callable[[tuple], str]) -> None:
        function = getattr(owner, name)

        def noted(*arguments: Any, **options: Any) -> Any:
            self._happened(label(arguments))
            return function(*arguments, **options)

        setattr(owner, name, noted)

    def _timed(self, event: str, seconds: float, **_: Any) -> None:
        if "backend_compile" in event:
            self._happened("compiled program")

    def _audit(self, event: str, arguments: tuple) -> None:
        if not self._begun or event not in _FILE_EVENTS:
            return
        if event == "open" and not _writes(*arguments[1:3]):
            return
        names = [self._named(path) for path in arguments[: _FILE_EVENTS[event]]]
        if all(names):
            self._happened(" to ".join([f"{event.removeprefix('os.')} of {names[0]}", *names[1:]]))

    def _named(self, path: Any) -> str:
        """A path inside of what counts, without what is new each time; otherwise empty."""
        if not isinstance(path, str | bytes | os.PathLike):
            return ""
        text = os.fsdecode(path)
        for folder, name in self._folders.items():
            # Programs are compiled once for all runs.
            if text.startswith(folder) and "/compiled/" not in text:
                return _NEW_NAME.sub("#", f"{name}/{text[len(folder) :]}")
        return ""

    def _happened(self, label: str) -> None:
        number = self._counts[label]
        self._counts[label] += 1
        if self._strike is None:
            self._note(f"{time.monotonic():.6f}\t{number}\t{label}")
        elif (label, number) == (self._strike.moment.label, self._strike.moment.number):
            if self._strike.delay:
                self._later(self._strike.delay, self._send)
            else:
                self._send()

    def _send(self) -> None:
        assert self._strike is not None
        if self._strike.second is not None:
            delay, number = self._strike.second
            self._later(delay, lambda: self._sent(number))
        self._sent(self._strike.number)

    def _sent(self, number: int) -> None:
        assert self._strike is not None
        self._note(f"{time.monotonic():.6f}\tsent\t{number}")
        if self._strike.group:
            os.killpg(0, number)
        else:
            os.kill(os.getpid(), number)

    @staticmethod
    def _later(seconds: float, call: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, call)
        timer.daemon = True
        timer.start()

    def _note(self, line: str) -> None:
        os.write(self._log, f"{line}\n".encode())


def _writes(mode: Any, flags: Any) -> bool:
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return isinstance(flags, int) and bool(flags & _WRITING)


def sent(log: Path) -> list[int]:
    """The signals that a process was sent."""
    lines = log.read_text("utf-8").splitlines() if log.exists() else []
    rows = [line.split("\t") for line in lines]
    return [int(row[2]) for row in rows if row[1] == "sent"]


def moments(log: Path) -> list[Moment]:
    """What happened in a run that nobody struck."""
    rows = [line.split("\t", 2) for line in log.read_text("utf-8").splitlines()]
    times = [float(row[0]) for row in rows]
    labels = [row[2] for row in rows]
    last = max(index for index, label in enumerate(labels) if label == "metrics of validation")
    first = labels.index("metrics of train")
    found, evaluating = [], False
    for index, (_, number, label) in enumerate(rows):
        evaluating = label == "evaluation" or (evaluating and label != "metrics of validation")
        if label == "save" or "/checkpoints" in label:
            stage = "commit" if "rename" in label else "save"
        elif index < first:
            stage = "start"
        elif evaluating or label == "metrics of validation":
            stage = "evaluation"
        else:
            stage = "finish" if index > last else "steps"
        if stage == "save" and index < first:
            stage = "start"
        gap = (times[index + 1] if index + 1 < len(times) else times[-1] + 0.2) - times[index]
        found.append(Moment(stage, label, int(number), min(gap, _LONGEST)))
    return found
