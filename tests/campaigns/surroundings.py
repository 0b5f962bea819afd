"""Full disks, folders that cannot be written, two writers, clocks that jump, odd paths and streams.

python -m tests.campaigns.surroundings --seconds=60

Everything is done by `train`, `evaluate`, `generate`, `predict`, `sweep` and `export_hf`. Allowed
is the result of usual surroundings, one message with exit code 1 or 2, and for what fills up or is
interrupted: that the same command, when there is room again, ends with the usual result.
"""

import atexit
import functools
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import jax

# The scripts find these imported.
import transformer.interop.opening
import transformer.runs.exporting
import transformer.runs.opening
import transformer.sweeps.sweep
import transformer.training.loop
import transformer.training.validation  # noqa: F401
from tests.campaigns import mounts
from tests.campaigns.frame import (
    ROOT,
    Case,
    Done,
    Outcome,
    Result,
    called,
    campaign,
    draws,
    ended_badly,
    forked,
    together,
)
from tests.campaigns.generated import write_data
from tests.campaigns.jobs import named
from tests.runs import TIMING

WRITTEN = "language modeling, average, microbatches, several steps at once"
LABELLED = "classes of texts"
# On a machine that does other things, too.
SECONDS = 300.0
# What says that something was not used, or made again.
_SAYS_SO = ("it is not used", "is made again", "is left out", "set aside", "kept aside")


class Stage(NamedTuple):
    """What all cases begin with.

    Attributes:
        data: generated files.
        cache: filled by the runs below.
        written: a finished run of a language model.
        labelled: one of a classifier.
    """

    data: Path
    cache: Path
    written: Path
    labelled: Path


class Place(NamedTuple):
    """Where a case reads and writes; each may be an odd path, or of an odd disk.

    Attributes:
        work: folder of what is made.
        written, labelled: finished runs.
        data: generated files.
        name: of what is made.
    """

    work: Path
    written: Path
    labelled: Path
    data: Path
    name: str = "made"

    @property
    def made(self) -> Path:
        """What is made."""
        return self.work / self.name


class Action(NamedTuple):
    """A script, and what shows that it has done its work.

    Attributes:
        flags: of the script, its name first.
        shown: what is compared with the same of usual surroundings.
        stdin: what it reads.
        writes: whether it makes something.
    """

    flags: Callable[[Place], list[str]]
    shown: Callable[[Place, Done], object]
    stdin: bytes = b""
    writes: bool = False


def _losses(run: Path) -> list[dict]:
    lines = (json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines())
    return [{key: x for key, x in line.items() if key not in TIMING} for line in lines]


def _training(place: Place, *flags: str) -> list[str]:
    few = ("--config.train.duration=6 steps", "--config.train.tensorboard=False")
    return [*named(WRITTEN).flags(place.data), *few, f"--workdir={place.made}", *flags]


def _trials(place: Place, done: Done) -> object:
    found = (place.made / "trials").glob("*/status.json")
    noted = (json.loads(path.read_text("utf-8")) for path in sorted(found))
    # Their names are of the whole config, with the paths of its data.
    return sorted((one["status"], one.get("validation_loss")) for one in noted)


def _exported(place: Place, done: Done) -> object:
    names = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json")
    return [(place.made / name).read_bytes() for name in names]


ACTIONS = {
    "train": Action(
        lambda place: ["train.py", *_training(place)],
        lambda place, done: (
            _losses(place.made),
            (place.made / "sample.txt").read_text("utf-8"),
            (place.made / "labels.json").exists(),
            (place.made / "curves.png").exists(),
        ),
        writes=True,
    ),
    "evaluate": Action(
        lambda place: ["evaluate.py", f"--workdir={place.written}", "--json"],
        lambda place, done: done.stdout,
    ),
    "generate": Action(
        lambda place: [
            "generate.py",
            f"--workdir={place.written}",
            "--prompt=the ",
            "--max_new_tokens=9",
        ],
        lambda place, done: done.stdout,
    ),
    "predict": Action(
        lambda place: ["predict.py", f"--workdir={place.labelled}", "--json"],
        lambda place, done: done.stdout,
        stdin="the cat\na dog\n\U0001f98a\n".encode(),
    ),
    "sweep": Action(
        lambda place: [
            "sweep.py",
            *_training(place, "--grid=optimizer.learning_rate=0.01,0.001", "--vectorize=none"),
        ],
        _trials,
        writes=True,
    ),
    "export": Action(
        lambda place: [
            "export_hf.py",
            f"--workdir={place.labelled}",
            f"--target={place.made}",
        ],
        _exported,
        writes=True,
    ),
}
WRITERS = [name for name, action in ACTIONS.items() if action.writes]


@functools.cache
def stage() -> Stage:
    """Made once, by processes of their own."""
    folder = Path(tempfile.mkdtemp(prefix="surroundings-"))
    owner = os.getpid()
    atexit.register(lambda: os.getpid() == owner and shutil.rmtree(folder, ignore_errors=True))
    found = Stage(*(folder / name for name in Stage._fields))
    found.data.mkdir()
    done = forked(lambda: write_data(found.data) or 0)
    assert done.code == 0, done.stderr
    os.environ["XDG_CACHE_HOME"] = str(found.cache)
    for name, run in ((WRITTEN, found.written), (LABELLED, found.labelled)):
        flags = [*named(name).flags(found.data), f"--workdir={run}"]
        done = forked(lambda flags=flags: called("train.py", *flags), seconds=SECONDS)
        assert done.code == 0, done.stderr
    return found


@functools.cache
def usual(name: str) -> object:
    """What an action shows in usual surroundings."""
    # Not one that deletes itself: a child would do it at its end.
    folder = Path(tempfile.mkdtemp(prefix="usual-"))
    try:
        place = _place(folder)
        done = forked(_call(name, place), stdin=ACTIONS[name].stdin, seconds=SECONDS)
        assert done.code == 0, done.stderr
        return ACTIONS[name].shown(place, done)
    finally:
        shutil.rmtree(folder)


def _place(work: Path, **others: Path | str) -> Place:
    found = stage()
    return Place(work, found.written, found.labelled, found.data)._replace(**others)


def _call(name: str, place: Place, before: Callable[[], object] = lambda: None):
    """A function that does an action, after a change of the process it is called in."""

    def function() -> int:
        before()
        script, *flags = ACTIONS[name].flags(place)
        return called(script, *flags)

    return function


def _judged(name: str, place: Place, done: Done, codes: Sequence[int] = (1, 2)) -> Result:
    bad = ended_badly(done)
    if bad is not None:
        return bad
    if done.code == 0:
        try:
            same = ACTIONS[name].shown(place, done) == usual(name)
        except (OSError, ValueError, KeyError) as error:
            return Result(Outcome.DIFFERENT, f"code 0, and {type(error).__name__}: {error}")
        if not same:
            return Result(Outcome.DIFFERENT, f"another result: {done.stderr[-600:]}")
        says_so = any(text in done.stderr for text in _SAYS_SO)
        return Result(Outcome.FELL_BACK if says_so else Outcome.RIGHT)
    messages = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    if done.code not in codes or len(messages) != 1:
        text = f"code {done.code}, {len(messages)} messages: {done.stderr[-800:]}"
        return Result(Outcome.UNCLEAR, text)
    return Result(Outcome.REFUSED, messages[0])


def _done(name: str, place: Place, before: Callable[[], object] = lambda: None) -> Result:
    usual(name)
    done = forked(_call(name, place, before), stdin=ACTIONS[name].stdin, seconds=SECONDS)
    return _judged(name, place, done)


def _again(first: Result, name: str, place: Place) -> Result:
    """After a refusal, the same command in usual surroundings has the usual result."""
    if first.outcome is not Outcome.REFUSED:
        return first
    again = _done(name, place)
    if again.outcome in (Outcome.RIGHT, Outcome.FELL_BACK):
        return first
    text = f"after {first.detail!r}, again: {again.outcome.value}: {again.detail}"
    return Result(Outcome.LOST if again.outcome is Outcome.REFUSED else again.outcome, text)


def _only(result: Result, *outcomes: Outcome) -> Result:
    """A result that is one of these, or is not allowed."""
    if result.outcome in outcomes or not result.outcome.allowed:
        return result
    return Result(Outcome.UNCLEAR, f"{result.outcome.value}: {result.detail}")


WORKS = (Outcome.RIGHT, Outcome.FELL_BACK)


def full_disk(source: random.Random) -> Case:
    name, size = source.choice(WRITERS), int(4 * 2 ** source.uniform(0, 10))

    def run(folder: Path) -> Result:
        with mounts.small_disk(folder, size):
            first = _done(name, place := _place(folder))
            mounts.enlarge(folder, 1 << 17)
            return _again(first, name, place)

    return Case("full disk", f"{name} on a disk of {size} kB, then of more", run)


def full_cache(source: random.Random) -> Case:
    name, size = source.choice([*ACTIONS]), int(4 * 2 ** source.uniform(0, 7))
    variable = source.choice(["XDG_CACHE_HOME", "XDG_CACHE_HOME", "TMPDIR"])

    def run(folder: Path) -> Result:
        (folder / "disk").mkdir()
        with mounts.small_disk(folder / "disk", size):
            change = functools.partial(os.environ.__setitem__, variable, str(folder / "disk"))
            return _only(_done(name, _place(folder), change), *WORKS)

    return Case("full cache", f"{name}, {variable} on a disk of {size} kB", run)


def file_limit(source: random.Random) -> Case:
    name, size = source.choice(WRITERS), int(100 * 2 ** source.uniform(0, 12))

    def run(folder: Path) -> Result:
        def change() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

        place = _place(folder)
        return _again(_done(name, place, change), name, place)

    return Case("limit of files", f"{name}, files of {size} bytes at most, then of any", run)


def read_only(source: random.Random) -> Case:
    name = source.choice([*ACTIONS])
    what = source.choice(["runs", "cache", "data", "TMPDIR"] + ["work"] * (name in WRITERS))

    def run(folder: Path) -> Result:
        found, change = stage(), lambda: None
        (folder / "work").mkdir()
        place = _place(folder / "work")
        fixed = {"runs": found.written, "cache": found.cache, "data": found.data}
        where = fixed.get(what, folder / "work" if what == "work" else folder / what)
        if what == "TMPDIR":
            where.mkdir()
            change = functools.partial(os.environ.__setitem__, what, str(where))
        with mounts.read_only(where):
            first = _done(name, place, change)
        return _again(first, name, place) if what == "work" else _only(first, *WORKS)

    return Case("read-only", f"{name}, {what} read-only", run)


def two_writers(source: random.Random) -> Case:
    name = source.choice(["train", "train", "sweep", "export", "evaluate"])
    shared = "cache" if name == "evaluate" else source.choice(["cache", "folder"])

    def run(folder: Path) -> Result:
        usual(name)
        places = [_place(folder, name=f"made{n if shared == 'cache' else ''}") for n in range(2)]

        def change() -> None:
            if shared == "cache":
                os.environ["XDG_CACHE_HOME"] = str(folder / "cache")

        done = together([_call(name, place, change) for place in places], seconds=SECONDS)
        # Who comes second to a folder has made a mistake; a cache is anybody's.
        codes = (2,) if shared == "folder" else (1, 2)
        results = [_judged(name, *pair, codes) for pair in zip(places, done, strict=True)]
        worst = [result for result in results if not result.outcome.allowed]
        if worst:
            return worst[0]
        refused = [result for result in results if result.outcome is Outcome.REFUSED]
        if shared == "cache" and refused:
            return Result(Outcome.UNCLEAR, refused[0].detail)
        if len(refused) == len(results):
            return Result(Outcome.LOST, f"neither has done it: {refused[0].detail}")
        left = [str(path) for path in folder.rglob("*.part")]
        if left:
            return Result(Outcome.LOST, f"left behind: {left}")
        return _again(results[0], name, places[0])

    return Case("two writers", f"two of {name} with one {shared}", run)


def clock(source: random.Random) -> Case:
    name = source.choice([*ACTIONS])
    jump = source.choice([-1, 1]) * source.choice([3600, 86_400, 10 * 365 * 86_400])
    at = source.choice([0, 1, *(int(2 ** source.uniform(1, 12)) for _ in range(4))])
    known, known_ns = time.time, time.time_ns

    def run(folder: Path) -> Result:
        calls = [0]

        def jumped() -> int:
            calls[0] += 1
            return jump if calls[0] > at else 0

        def change() -> None:
            time.time = lambda: known() + jumped()
            time.time_ns = lambda: known_ns() + jumped() * 10**9

        return _only(_done(name, _place(folder), change), *WORKS)

    return Case("clock", f"{name}, the clock jumps by {jump} s when it is read {at} times", run)


NAMES = (
    *("a b", " a", "a ", "new\nline", "tab\there", "it's", '"quoted"', "\U0001f98a", "100%s%d%n"),
    *("-dash", "--workdir=x", "e\u0301\u00e9", "a=b", "a:b", "a;b", "#a", "*", "[a]", "{data}"),
    *("$HOME", "~", "a\\b", "x" * 255, "\U0001f98a" * 63, ".hidden", "...", "\udcff", "CON"),
    *("x.part", "checkpoints", "0", "\u202egpj", "\x7f\x1b[31m"),
)


def odd_paths(source: random.Random) -> Case:
    name, odd = source.choice([*ACTIONS]), source.choice(NAMES)
    what = source.choice(["work", "runs", "data", "cache", "all"])
    form = source.choice(["absolute", "relative", "slash", "dots", "link", "link to the run"])

    def run(folder: Path) -> Result:
        found = stage()
        home = folder / (odd if what in ("work", "all") else "work")
        home.mkdir()
        place, changes = _place(home), []
        if what in ("runs", "all"):
            for kind in ("written", "labelled"):
                there = folder / f"{kind}-copy" / odd
                shutil.copytree(getattr(found, kind), there)
                place = place._replace(**{kind: there})
        if what in ("data", "all"):
            shutil.copytree(found.data, folder / "data" / odd)
            place = place._replace(data=folder / "data" / odd)
        if what in ("cache", "all"):
            changes.append(lambda: os.environ.update(XDG_CACHE_HOME=str(folder / "cache" / odd)))
        place = _formed(place, form, folder, changes)
        result = _done(name, place, lambda: [change() for change in changes])
        # A text can be no path of these, and says so.
        return result if {"{", "\n"} & set(odd) else _only(result, *WORKS, Outcome.REFUSED)

    return Case("paths", f"{name}, {what} below {odd!r}, {form}", run)


def _formed(place: Place, form: str, folder: Path, changes: list) -> Place:
    """The same place by another path."""
    if form == "relative":
        changes.append(lambda: os.chdir(folder))
        return place._replace(
            **{
                field: Path(os.path.relpath(getattr(place, field), folder))
                for field in ("work", "written", "labelled", "data")
                if folder in getattr(place, field).parents
            }
        )
    if form == "dots":
        (folder / "x").mkdir()
        return place._replace(work=folder / "x" / ".." / place.work.name)
    if form == "slash":
        return place._replace(name=place.name + "/")
    if form == "link":
        link = folder / "a link"
        link.symlink_to(place.work)
        return place._replace(work=link)
    if form == "link to the run":
        link = folder / "another link"
        link.symlink_to(place.written)
        return place._replace(written=link)
    return place


ENVIRONMENTS: dict[str, dict[str, str | None]] = {
    "no home": {"HOME": None, "XDG_CACHE_HOME": None},
    "an empty home": {"HOME": "", "XDG_CACHE_HOME": None},
    "a home that is not there": {"HOME": "/nonexistent/x", "XDG_CACHE_HOME": None},
    "a home that is a device": {"HOME": "/dev/null", "XDG_CACHE_HOME": None},
    "a home that nothing can be written in": {"HOME": "/proc", "XDG_CACHE_HOME": None},
    "a cache that is a device": {"XDG_CACHE_HOME": "/dev/null"},
    "a cache in /proc": {"XDG_CACHE_HOME": "/proc/x"},
    "an empty cache": {"XDG_CACHE_HOME": ""},
    "no temporary folder": {"TMPDIR": "/nonexistent/x"},
    "no terminal": {"TERM": None, "COLUMNS": "0"},
    "a wide terminal": {"TERM": "xterm", "COLUMNS": "99999999", "LINES": "-1"},
    "no search path": {"PATH": ""},
    "another time zone": {"TZ": "Pacific/Kiritimati"},
    "matplotlib elsewhere": {"MPLCONFIGDIR": "/proc/x"},
    "nothing": dict.fromkeys(("HOME", "XDG_CACHE_HOME", "PATH", "TMPDIR", "USER")),
}


def environment(source: random.Random) -> Case:
    name, which = source.choice([*ACTIONS]), source.choice([*ENVIRONMENTS])
    # A user whom the system does not know, as in many containers.
    unknown = source.random() < 0.3

    def run(folder: Path) -> Result:
        def change() -> None:
            for variable, value in ENVIRONMENTS[which].items():
                if value is None:
                    os.environ.pop(variable, None)
                else:
                    os.environ[variable] = value
            tempfile.tempdir = None
            if "HOME" not in os.environ and unknown:
                mock.patch(
                    "pwd.getpwuid", side_effect=KeyError("getpwuid(): uid not found")
                ).start()

        return _only(_done(name, _place(folder), change), *WORKS)

    known = ", a user whom nobody knows" if unknown else ""
    return Case("environment", f"{name}, {which}{known}", run)


def locale(source: random.Random) -> Case:
    name = source.choice([*ACTIONS])
    settings = source.choice(
        [
            {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
            {"LC_ALL": "POSIX"},
            {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
            {"LC_ALL": "xx_YY.ISO-8859-15", "LANG": "xx"},
            {"PYTHONIOENCODING": "utf-16"},
        ]
    )

    def run(folder: Path) -> Result:
        usual(name)
        (folder / "\U0001f98a\u00e9").mkdir()
        place = _place(folder / "\U0001f98a\u00e9")
        script, *flags = ACTIONS[name].flags(place)
        done = subprocess.run(
            [sys.executable, str(ROOT / "scripts" / script), *flags],
            check=False,
            input=ACTIONS[name].stdin,
            env=os.environ | settings,
            capture_output=True,
            timeout=300,
        )
        texts = [text.decode("utf-8", "replace") for text in (done.stdout, done.stderr)]
        return _only(
            _judged(name, place, Done(done.returncode, *texts, False, 0, False, 0)), *WORKS
        )

    return Case("locale", f"{name}, {settings}", run)


STREAMS = ("closed", "full", "left", "unreadable")


def streams(source: random.Random) -> Case:
    name, number, how = source.choice([*ACTIONS]), source.choice([0, 1, 2]), source.choice(STREAMS)

    def run(folder: Path) -> Result:
        def change() -> None:
            if how == "closed":
                os.close(number)
                setattr(sys, ("stdin", "stdout", "stderr")[number], None)
            elif how == "full":
                os.dup2(os.open("/dev/full", os.O_RDWR), number)
            elif how == "left":
                reader, writer = os.pipe()
                os.dup2(writer if number else reader, number)
                os.close(reader)
                os.close(writer)
            else:
                os.dup2(os.open(folder, os.O_RDONLY), number)

        place = _place(folder)
        usual(name)
        done = forked(_call(name, place, change), stdin=ACTIONS[name].stdin, seconds=SECONDS)
        lost = (number, how) in [(n, h) for n in (1, 2) for h in ("closed", "full", "left")]
        if (lost or number) and done.code in (0, 1, 2) and ended_badly(done) is None:
            # Nobody sees a result or a message; a result that was lost must not look like one.
            said = number == 1 and how in ("full", "unreadable") and done.code == 0
            if said and not ACTIONS[name].writes:
                return Result(Outcome.DIFFERENT, "code 0, and the result was not written")
            return _again(Result(Outcome.REFUSED), name, place) if done.code else Result(WORKS[0])
        return _judged(name, place, done)

    return Case("streams", f"{name}, stream {number} {how}", run)


def _kinds() -> list[Callable[[random.Random], Case]]:
    always = [file_limit, two_writers, clock, odd_paths, environment, locale, streams]
    # Where there are no mounts, limits of files stand for full disks.
    return [*always, full_disk, full_cache, read_only] if mounts.begin() else always


if __name__ == "__main__":
    # What is compared is compiled in the same way, and that may be the fastest.
    jax.config.update("jax_disable_most_optimizations", True)
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"
    stage()
    campaign("surroundings", draws(_kinds()), count=60)
