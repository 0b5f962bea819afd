"""What campaigns share: cases, their outcomes, processes with limits, a table and a report."""

import argparse
import atexit
import contextlib
import dataclasses
import enum
import json
import os
import random
import resource
import runpy
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import rich.console
import rich.table

ROOT = Path(__file__).parents[2]
# A process may not hold more than this, unless a case says so.
MEGABYTES = 2048
SECONDS = 60.0


class Outcome(enum.Enum):
    """What became of a case. The first three are allowed."""

    RIGHT = "right result"
    REFUSED = "one message"
    FELL_BACK = "fall-back that says so"
    TRACEBACK = "traceback"
    HANG = "hang"
    CRASH = "crash"
    DIFFERENT = "silent difference"
    LOST = "loss"
    MEMORY = "memory"
    UNCLEAR = "unclear message or code"

    @property
    def allowed(self) -> bool:
        return self in (Outcome.RIGHT, Outcome.REFUSED, Outcome.FELL_BACK)


class Result(NamedTuple):
    """An outcome, and for those that are not allowed what was seen."""

    outcome: Outcome
    detail: str = ""


class Case(NamedTuple):
    """One fault.

    Attributes:
        kind: the row of the table that it counts in.
        what: says in words what is done, so that a person can do it again.
        run: does it, in a fresh folder that is deleted afterwards.
    """

    kind: str
    what: str
    run: Callable[[Path], Result]


@dataclasses.dataclass(frozen=True)
class Done:
    """A process that has ended.

    Attributes:
        code: exit code, or minus the signal that ended it.
        stdout, stderr: what it wrote.
        timed_out: whether it was killed for the time it took.
        megabytes: the most it held at once, beyond what it began with.
        too_large: whether it was killed for what it held.
        seconds: after which it had ended.
    """

    code: int
    stdout: str
    stderr: str
    timed_out: bool
    megabytes: float
    too_large: bool
    seconds: float


def campaign(
    name: str,
    cases: Callable[[random.Random], Case],
    *,
    count: int = 100,
    counts: Mapping[str, int] | None = None,
) -> None:
    """Runs cases until their number or the time is reached, and exits: 1 if any was not allowed.

    Args:
        name: of the campaign.
        cases: draws one; all that is random in it comes from the generator.
        count: of cases, where the command line gives neither a number nor a time.
        counts: what else the cases have counted, shown at the end.
    """
    parser = argparse.ArgumentParser(description=__import__("__main__").__doc__)
    parser.add_argument("--seconds", type=float, help="begin no case after this time")
    parser.add_argument("--count", type=int, help="how many cases")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="repeat the case with this number")
    parser.add_argument("--report", type=Path, help="write a report as JSON")
    given = parser.parse_args()
    if given.count is None and given.seconds is None:
        given.count = count
    begun, results = time.monotonic(), []
    index = 0 if given.only is None else given.only
    while given.count is None or len(results) < given.count:
        if given.seconds is not None and time.monotonic() - begun > given.seconds:
            break
        case = cases(random.Random(f"{name}/{given.seed}/{index}"))
        result = _carried_out(case)
        results.append((index, case, result))
        if not result.outcome.allowed:
            print(
                f"{name} {index} (--seed={given.seed} --only={index}), {case.kind}: {case.what}\n"
                f"  {result.outcome.value}: {result.detail}",
                file=sys.stderr,
                flush=True,
            )
        if given.only is not None:
            print(f"{case.what}: {result.outcome.value}. {result.detail}")
            break
        index += 1
    taken = time.monotonic() - begun
    _show(name, [(case, result) for _, case, result in results], taken)
    bad = [one for one in results if not one[2].outcome.allowed]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    also = {"processor seconds": round(used.ru_utime + used.ru_stime)} | dict(counts or {})
    print(", ".join(f"{what}: {number}" for what, number in sorted(also.items())))
    if given.report:
        _report(given.report, name, given.seed, results, taken, also)
    sys.exit(1 if bad else 0)


def _carried_out(case: Case) -> Result:
    folder = Path(tempfile.mkdtemp(prefix="campaign-"))
    try:
        return case.run(folder)
    finally:
        _delete(folder)


def _delete(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            with contextlib.suppress(OSError):
                path.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)


def _show(name: str, results: Sequence[tuple[Case, Result]], seconds: float) -> None:
    counts: dict[str, Counter] = defaultdict(Counter)
    for case, result in results:
        counts[case.kind][result.outcome] += 1
    total = sum(counts.values(), Counter())
    seen = [outcome for outcome in Outcome if outcome.allowed or total[outcome]]
    table = rich.table.Table(title=f"{name}: {len(results)} cases in {seconds:.0f} s")
    table.add_column("kind")
    for outcome in seen:
        table.add_column(outcome.value, justify="right", style=None if outcome.allowed else "red")
    for kind, row in [*sorted(counts.items()), ("all", total)]:
        table.add_row(kind, *(str(row[outcome]) for outcome in seen))
    rich.console.Console(width=140).print(table)


def _report(
    path: Path, name: str, seed: int, results: Sequence, seconds: float, also: Mapping[str, int]
) -> None:
    counts: dict[str, Counter] = defaultdict(Counter)
    for _, case, result in results:
        counts[case.kind][result.outcome.value] += 1
    bad = [
        {"only": index, "kind": case.kind, "what": case.what, "outcome": result.outcome.value}
        | {"detail": result.detail}
        for index, case, result in results
        if not result.outcome.allowed
    ]
    content = {"campaign": name, "seed": seed, "cases": len(results), "seconds": round(seconds)}
    content |= {"kinds": {kind: dict(row) for kind, row in sorted(counts.items())}, "bad": bad}
    content["counts"] = dict(also)
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def forked(
    function: Callable[[], int],
    *,
    stdin: bytes = b"",
    seconds: float = SECONDS,
    megabytes: float = MEGABYTES,
    signals: Sequence[tuple[float, int]] = (),
) -> Done:
    """Calls a function in a process of its own, which has imported what this one has.

    This process must not have computed anything with JAX: its threads are not there in the other.

    Args:
        function: gives the exit code; one that raises ends as Python does.
        stdin: what it can read there.
        seconds: after which it is killed.
        megabytes: resident memory beyond that of the beginning at which it is killed.
        signals: seconds after the beginning, and which signal is sent then.
    """
    options = {"stdin": stdin, "seconds": seconds, "megabytes": megabytes, "signals": signals}
    return together([function], **options)[0]


def together(
    functions: Sequence[Callable[[], int]],
    *,
    stdin: bytes = b"",
    seconds: float = SECONDS,
    megabytes: float = MEGABYTES,
    signals: Sequence[tuple[float, int]] = (),
) -> list[Done]:
    """The same with a process for each of several functions, at the same time.

    Args:
        functions: each as `forked` takes one.
        stdin: what each can read.
        seconds: after which those that remain are killed.
        megabytes: of each.
        signals: sent to all.
    """
    with contextlib.ExitStack() as held:
        files = [
            [held.enter_context(tempfile.TemporaryFile()) for _ in range(3)] for _ in functions
        ]
        sys.stdout.flush()
        sys.stderr.flush()
        children = []
        for function, (given, *others) in zip(functions, files, strict=True):
            given.write(stdin)
            given.seek(0)
            child = os.fork()
            if child == 0:
                _in_child(function, [given, *others])
            children.append(_Watched(child))
        begun, left = time.monotonic(), list(signals)
        while any(child.status is None for child in children):
            now = time.monotonic() - begun
            for child in children:
                child.look(now, seconds, megabytes)
            while left and left[0][0] <= now:
                number = left.pop(0)[1]
                for child in children:
                    child.send(number)
            time.sleep(0.005)
        return [child.done(read) for child, (_, *read) in zip(children, files, strict=True)]


def _in_child(function: Callable[[], int], files: Sequence) -> None:
    code = 1
    try:
        os.setpgid(0, 0)
        for number, file in enumerate(files):
            os.dup2(file.fileno(), number)
        sys.stdin, sys.stdout, sys.stderr = (
            # As Python has them: what cannot be written as UTF-8 is escaped on stderr.
            open(n, mode, encoding="utf-8", errors=errors, closefd=False)  # noqa: SIM115
            for n, mode, errors in ((0, "r", None), (1, "w", None), (2, "w", "backslashreplace"))
        )
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        try:
            code = function()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


class _Watched:
    """A child that has begun, and what was seen of it so far."""

    def __init__(self, child: int) -> None:
        self._child, self._first, self._peak = child, _resident(child), 0.0
        self._timed_out = self._too_large = False
        self._ended = 0.0
        self.status: int | None = None

    def look(self, now: float, seconds: float, most: float) -> None:
        """Notes whether it has ended, and ends it where it has had too much."""
        if self.status is not None:
            return
        found, status = os.waitpid(self._child, os.WNOHANG)
        if not found:
            self._peak = max(self._peak, _resident(self._child) - self._first)
            self._timed_out, self._too_large = now > seconds, self._peak > most
            if not (self._timed_out or self._too_large):
                return
            _kill(self._child)
            _, status = os.waitpid(self._child, 0)
        self.status, self._ended = status, now
        # Its own children, if it left any.
        _kill(self._child)

    def send(self, number: int) -> None:
        """A signal, if it still runs."""
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, number)

    def done(self, files: Sequence) -> Done:
        """What has become of it."""
        texts = []
        for file in files:
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
        code = os.waitstatus_to_exitcode(self.status or 0)
        return Done(code, *texts, self._timed_out, self._peak, self._too_large, self._ended)


def _kill(child: int) -> None:
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(child, signal.SIGKILL)


def _resident(child: int) -> float:
    """Megabytes that a process holds now."""
    try:
        pages = int(Path(f"/proc/{child}/statm").read_text("ascii").split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def script(name: str, *flags: str, where: Path | None = None, **options) -> Done:
    """A script of `scripts/` with these flags, in a forked process.

    Args:
        name: of the script.
        *flags: of it.
        where: the folder it runs in; None leaves it.
        **options: as of `forked`.
    """

    def run() -> int:
        os.chdir(where or ".")
        return called(name, *flags)

    return forked(run, **options)


def called(name: str, *flags: str) -> int:
    """The same in this process, which is one that was forked: it ends as the script does."""
    path = str(ROOT / "scripts" / name)
    sys.argv = [path, *flags]
    # As `python scripts/NAME` has it.
    sys.path.insert(0, str(ROOT / "scripts"))
    runpy.run_path(path, run_name="__main__")
    return 0


def ended_badly(done: Done) -> Result | None:
    """What no process may do, whatever it was given; None if it did nothing of that."""
    end = done.stderr[-400:]
    if done.timed_out:
        return Result(Outcome.HANG, end)
    if done.too_large:
        return Result(Outcome.MEMORY, f"{done.megabytes:.0f} MB")
    if "Traceback (most recent call last)" in done.stderr:
        begin = max(0, done.stderr.index("Traceback (most recent call last)") - 300)
        return Result(Outcome.TRACEBACK, done.stderr[begin : begin + 2500])
    if done.code < 0 or done.code in (134, 139):
        return Result(Outcome.CRASH, f"code {done.code}: {end}")
    return None


def refused(done: Done, *, names: Sequence[str] = (), code: int = 2) -> Result:
    """Whether there is one message, with this exit code, that names what is meant.

    Args:
        done: a process that was given something wrong.
        names: of which one at least must be in the message; empty does not ask.
        code: promised.
    """
    bad = ended_badly(done)
    if bad is not None:
        return bad
    messages = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    if done.code != code or len(messages) != 1:
        return Result(Outcome.UNCLEAR, f"code {done.code}, {len(messages)} messages: {done.stderr}")
    message = done.stderr[done.stderr.index("error:") :]
    # What is not UTF-8 is written on stderr as a person can read it.
    known = [name.encode("utf-8", "backslashreplace").decode() for name in names]
    if names and not any(name in message for name in (*names, *known)):
        return Result(Outcome.UNCLEAR, f"none of {list(names)} is named: {message}")
    return Result(Outcome.REFUSED)


def draws(choices: Sequence[Callable[[random.Random], Case]]) -> Callable[[random.Random], Case]:
    """Draws cases of several kinds, each as often."""
    return lambda source: source.choice(choices)(source)
