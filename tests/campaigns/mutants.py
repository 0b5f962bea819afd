"""Which small changes of a file its tests do not notice.

    python -m tests.campaigns.mutants transformer/ops/masks.py tests/ops/test_masks.py

Each mutant (`mutated_code.py`) is tested in a forked process, which has imported JAX already and
finds compiled programs in the cache of the tests; the tests that reach the changed line come first,
the quick ones before the slow ones. The file itself stays as it is. Those that survive are shown;
each needs a test, or a reason.
"""

import argparse
import contextlib
import gc
import importlib
import importlib.machinery
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import jax
import pytest

from tests.campaigns.frame import ROOT, forked
from tests.campaigns.mutated_code import Mutant, mutants


class Reached(NamedTuple):
    """What the tests do while nothing is changed.

    Attributes:
        seconds: that each test takes.
        lines: of the file that each test reaches.
        modules: that were imported in the end.
    """

    seconds: dict[str, float]
    lines: dict[str, list[int]]
    modules: list[str]


class _Watch:
    """A plugin of pytest that notes what a test reaches, and how long it takes."""

    def __init__(self, file: Path, report: Path) -> None:
        self._file, self._report = str(file), report
        self._seconds: dict[str, float] = defaultdict(float)
        self._lines: dict[str, set[int]] = defaultdict(set)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item):
        lines = self._lines[item.nodeid]

        def line(frame: FrameType, event: str, _: object):
            lines.add(frame.f_lineno)
            return line

        def call(frame: FrameType, event: str, _: object):
            return line if frame.f_code.co_filename == self._file else None

        begun = time.process_time()
        sys.settrace(call)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            self._seconds[item.nodeid] = time.process_time() - begun

    def pytest_sessionfinish(self) -> None:
        lines = {test: sorted(found) for test, found in self._lines.items()}
        self._report.write_text(json.dumps(Reached(self._seconds, lines, sorted(sys.modules))))


class _Order:
    """A plugin of pytest: first the tests that reach a line, each time the quick ones first."""

    def __init__(self, line: int, reached: Reached) -> None:
        self._line, self._reached = line, reached

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        def place(item: pytest.Item) -> tuple[bool, float]:
            lines = self._reached.lines.get(item.nodeid, [])
            return self._line not in lines, self._reached.seconds.get(item.nodeid, 0.0)

        items.sort(key=place)


class _Cache:
    """A plugin of pytest that keeps every compiled program, however small."""

    def pytest_configure(self) -> None:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def tested(names: Sequence[str], plugin: object) -> int:
    """Runs tests in this process, a forked one; the exit code of pytest."""
    options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts="]
    # Here JAX and others are imported before pytest, on purpose.
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning", "--tb=line"]
    return int(pytest.main([*options, *names], plugins=[_Cache(), plugin]))


def replaced(file: Path, code: str) -> None:
    """From now on importing this file gives this code, with the checks of shapes as always."""
    loader, path = importlib.machinery.SourceFileLoader, str(file)
    read, times = loader.get_data, loader.path_stats

    def get_data(self, name):
        return code.encode("utf-8") if name == path else read(self, name)

    def path_stats(self, name):
        # A file without times is neither looked for among compiled ones, nor kept there.
        if name == path:
            raise OSError
        return times(self, name)

    loader.get_data, loader.path_stats = get_data, path_stats


def reached(file: Path, names: Sequence[str]) -> Reached:
    """Runs the tests once as they are, in a forked process."""
    # No TemporaryDirectory: each forked process would remove it at its end.
    number, report = tempfile.mkstemp(suffix=".json")
    os.close(number)
    try:
        first = forked(lambda: tested(names, _Watch(file, Path(report))), seconds=1800)
        assert first.code == 0, f"the tests fail: {first.stdout} {first.stderr}"
        return Reached(*json.loads(Path(report).read_text("utf-8")))
    finally:
        Path(report).unlink()


def imported(modules: Sequence[str], file: Path) -> None:
    """Imports modules ahead of all mutants, except tests and those that need the file."""
    mutated = ".".join(file.relative_to(ROOT).with_suffix("").parts)
    # What imports it fails, and is imported again in the forked processes.
    sys.modules[mutated] = None
    for name in modules:
        if name.split(".")[0] not in ("tests", "conftest", "__main__"):
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    del sys.modules[mutated]
    # Else each forked process copies all that it looks at.
    gc.freeze()


def tried(file: Path, mutant: Mutant, names: Sequence[str], known: Reached) -> str:
    """Tests one mutant: "killed", "survived" or "timed out"."""
    # Of a processor: a busy machine takes longer.
    seconds = 30 + 5 * int(sum(known.seconds.values()))

    def test() -> int:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
        replaced(file, mutant.code)
        return tested(names, _Order(mutant.line, known))

    done = forked(test, seconds=20 * seconds, megabytes=8192)
    if done.timed_out or done.code == -signal.SIGXCPU:
        return "timed out"
    return "survived" if done.code == 0 else "killed"


def tested_all(
    file: Path, names: Sequence[str], every: int, try_one: Callable[..., str] = tried
) -> dict[str, int]:
    """Tests each n-th mutant of a file, shows survivors, and counts what became of all."""
    known = reached(file, names)
    imported(known.modules, file)
    all_mutants = mutants(file.read_text("utf-8"))
    counts = {"mutants": len(all_mutants), "tried": 0, "killed": 0, "survived": 0, "timed out": 0}
    for mutant in all_mutants[::every]:
        outcome = try_one(file, mutant, names, known)
        counts["tried"] += 1
        counts[outcome] += 1
        if outcome != "killed":
            where = f"{file.relative_to(ROOT)}:{mutant.line}"
            print(f"{where}: {outcome}\n-  {mutant.before}\n+  {mutant.after}", flush=True)
    return counts


def main() -> int:
    """Shows the survivors; their number, at most 1, is the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("tests", nargs="+")
    parser.add_argument("--every", type=int, default=1, help="only each n-th mutant")
    given = parser.parse_args()
    counts = tested_all(given.file.resolve(), given.tests, given.every)
    print(f"{given.file}: " + ", ".join(f"{number} {what}" for what, number in counts.items()))
    return min(counts["survived"], 1)


if __name__ == "__main__":
    sys.exit(main())
