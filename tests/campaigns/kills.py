"""Kills runs of every task at random moments: what goes on afterwards must end with the same bits.

A case kills a run up to three times, by SIGKILL, SIGTERM or SIGINT, and once more before it has
ended; then it is run to its end. All of its folder must be as in a run that was never killed: the
metrics, the state, which checkpoints there are and which is the best, TensorBoard, samples, scores,
predictions, pictures, and no file besides. A process that was sent a signal must end with the code
that is promised, and say nothing that only a programmer understands.
"""

import atexit
import contextlib
import functools
import importlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.campaigns import frame, generated, jobs, moments
from tests.campaigns.comparison import differences
from tests.campaigns.frame import Case, Done, Outcome, Result

# Of the first run of a job, which compiles its programs, on a busy machine.
SECONDS = 900.0
# What a process may still take when it was asked to stop.
ENDING = 60.0
DIFFERENT = 99
# How often a process of its own is struck, with imports and all, and how often the cache of data
# is empty at first.
REAL, EMPTY_CACHE, ONCE_MORE = 0.1, 0.3, 0.2
# Programs are kept for later campaigns.
COMPILED = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "transformer/campaigns")
_FROM = re.compile(r"from step (\d+)")
KILLED: Counter[str] = Counter()


class Reference(NamedTuple):
    """A run that nobody killed, and the seconds that it took."""

    workdir: Path
    moments: list[moments.Moment]
    seconds: float

    @property
    def longest(self) -> float:
        """Seconds after which another one hangs: machines are busier at times."""
        return 60 + 10 * self.seconds


@functools.cache
def campaign_folder() -> Path:
    """What all cases share, until this process ends."""
    folder, owner = Path(tempfile.mkdtemp(prefix="kills-")), os.getpid()
    # Processes that were forked from this one run what is registered here, too.
    atexit.register(lambda: shutil.rmtree(folder) if os.getpid() == owner else None)
    (folder / "data").mkdir()
    generated.write_data(folder / "data")
    return folder


@functools.cache
def reference(name: str) -> Reference:
    """A run of the job with this name that nobody kills; made once."""
    job = jobs.named(name)
    if job.base:
        reference(job.base)
    folder = campaign_folder() / "references" / str(jobs.JOBS.index(job))
    folder.mkdir(parents=True)

    def run() -> int:
        with noting_modules(folder / "modules"):
            return _train(job, folder, folder / "cache", None)

    done = frame.forked(run, seconds=SECONDS, megabytes=4096)
    if done.code != 0:
        raise RuntimeError(f"{job.name}: no run to compare with: {done.stderr[-2000:]}")
    import_noted(folder / "modules")
    return Reference(folder / "run", moments.moments(folder / "log"), done.seconds)


@contextlib.contextmanager
def noting_modules(path: Path) -> Iterator[None]:
    """Writes a list of what is imported when this ends."""
    try:
        yield
    finally:
        path.write_text("\n".join(sorted(sys.modules)), "utf-8")


def import_noted(path: Path) -> None:
    """Imports in this process what runs import on their way, so that they find it there.

    That is half of what they would compute: TensorBoard's files alone import PyTorch, where it is.
    """
    for name in path.read_text("utf-8").splitlines():
        if name not in sys.modules:
            # Configs are no modules that can be found; and what fails here, fails there.
            with contextlib.suppress(Exception), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                importlib.import_module(name)


def flags(job: jobs.Job, workdir: Path) -> list[str]:
    """Of `train.py`."""
    base = reference(job.base).workdir if job.base else None
    return [*job.flags(campaign_folder() / "data", base), f"--workdir={workdir}", "--json"]


def _train(job: jobs.Job, folder: Path, cache: Path, strike: moments.Strike | None) -> int:
    """In a forked process: a run in `folder / "run"`."""
    use_cache(cache)
    return moments.observed(
        "train.py",
        *flags(job, folder / "run"),
        folders={"run": folder / "run", "cache": cache / "transformer"},
        log=folder / "log",
        strike=strike,
    )


def use_cache(cache: Path) -> None:
    """Of data in this folder, and of compiled programs in one that all runs share."""
    os.environ["XDG_CACHE_HOME"] = str(cache)
    link = cache / "transformer" / "compiled"
    if not link.exists():
        COMPILED.mkdir(parents=True, exist_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            link.symlink_to(COMPILED)


def cases(source: random.Random) -> Case:
    """A run that is killed one to three times."""
    job, stage = source.choice(jobs.JOBS), source.choice(moments.STAGES)
    seed = source.randrange(2**32)
    real = source.random() < REAL
    if real:
        return Case(
            "a process of its own",
            f"{job.name}: killed at any time (seed {seed})",
            lambda folder: in_processes(job, folder, random.Random(seed)),
        )
    return Case(
        stage,
        f"{job.name}: killed at {stage} (seed {seed})",
        lambda folder: in_forks(job, stage, folder, random.Random(seed)),
    )


def in_forks(job: jobs.Job, stage: str, folder: Path, source: random.Random) -> Result:
    """Strikes at moments of one stage, then of any."""
    known, cache = reference(job.name), reference(job.name).workdir.parent / "cache"
    if source.random() < EMPTY_CACHE:
        cache = folder / "cache"
    said = []
    for round_ in range(source.choice((1, 1, 2, 3))):
        stage = stage if round_ == 0 else source.choice(moments.STAGES)
        strike = moments.drawn(known.moments, stage, source)
        said.append(str(strike))
        (folder / "log").unlink(missing_ok=True)
        newest = newest_checkpoint(folder / "run")
        done = frame.forked(
            functools.partial(_train, job, folder, cache, strike),
            seconds=known.longest,
            megabytes=4096,
        )
        numbers = moments.sent(folder / "log")
        KILLED.update(signal.Signals(number).name for number in numbers[:1])
        KILLED.update([f"at {stage}", job.name] if numbers else ["moments not reached"])
        bad = _badly_ended(done, numbers) or lost(done, newest)
        if bad is not None:
            return Result(bad.outcome, f"{'; '.join(said)}: {bad.detail}")
    bad = run_to_the_end(job, folder, cache, source.random() < ONCE_MORE)
    return bad._replace(detail=f"{'; '.join(said)}: {bad.detail}") if bad else Result(Outcome.RIGHT)


def run_to_the_end(job: jobs.Job, folder: Path, cache: Path, again: bool) -> Result | None:
    """What is wrong with the run when it has ended; None if nothing is.

    Args:
        job: whose run it is.
        folder: in which the run is.
        cache: of data.
        again: whether it is called once more when it has ended, which changes nothing.
    """

    def run() -> int:
        try:
            code = _train(job, folder, cache, None)
        except SystemExit as end:
            code = end.code
        found = [] if code else differences(folder / "run", reference(job.name).workdir)
        if found:
            print("; ".join(found), file=sys.stderr)
        return DIFFERENT if found else code

    for _ in range(1 + again):
        newest = newest_checkpoint(folder / "run")
        done = frame.forked(run, seconds=reference(job.name).longest, megabytes=4096)
        if done.code == DIFFERENT:
            return Result(Outcome.DIFFERENT, done.stderr.splitlines()[-1])
        bad = frame.ended_badly(done) or lost(done, newest)
        if bad is None and done.code:
            bad = Result(Outcome.UNCLEAR, f"does not go on: code {done.code}: {done.stderr[-600:]}")
        if bad is not None:
            return bad
    return None


def in_processes(job: jobs.Job, folder: Path, source: random.Random) -> Result:
    """Strikes a process as a user starts it, at any time, imports included."""
    known = reference(job.name)
    cache = known.workdir.parent / "cache"
    number = source.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
    group, wait = source.random() < 0.3, source.uniform(0.05, 1.2 * known.seconds)
    said = f"{signal.Signals(number).name}{' to the group' if group else ''} after {wait:.2f} s"
    with (folder / "out").open("w+") as out, (folder / "err").open("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, str(frame.ROOT / "scripts" / "train.py"), *flags(job, folder / "run")],
            stdout=out,
            stderr=errors,
            env={**os.environ, "XDG_CACHE_HOME": str(cache)},
            start_new_session=True,
        )
        begun = time.monotonic()
        try:
            code = process.wait(wait)
            numbers = []
        except subprocess.TimeoutExpired:
            (os.killpg if group else os.kill)(process.pid, number)
            numbers = [number]
            try:
                code = process.wait(ENDING)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return Result(Outcome.HANG, f"{said}: it still runs {ENDING:.0f} s later")
        taken = time.monotonic() - begun
    texts = [(folder / name).read_text("utf-8") for name in ("out", "err")]
    done = Done(code, *texts, False, 0.0, False, taken)
    if numbers:
        KILLED.update([signal.Signals(number).name, "in a process of its own", job.name])
    bad = _badly_ended(done, numbers) or run_to_the_end(job, folder, cache, again=False)
    return bad._replace(detail=f"{said}: {bad.detail}") if bad else Result(Outcome.RIGHT)


def _badly_ended(done: Done, numbers: list[int]) -> Result | None:
    """What a process did wrong that was sent signals, or ended before it was."""
    end = done.stderr[-800:]
    if done.timed_out:
        return Result(Outcome.HANG, end)
    if done.too_large:
        return Result(Outcome.MEMORY, f"{done.megabytes:.0f} MB")
    if "Traceback (most recent call last)" in done.stderr or "Exception ignored" in done.stderr:
        return Result(Outcome.TRACEBACK, done.stderr[-2500:])
    # It may have been through with everything.
    allowed = {0} | {128 + number for number in numbers if number != signal.SIGKILL}
    if signal.SIGKILL in numbers:
        allowed = allowed - {0} if numbers[0] == signal.SIGKILL else allowed
        allowed |= {-signal.SIGKILL}
    if len(numbers) > 1:
        # The second one acts as usual.
        allowed |= {-number for number in numbers[1:]}
    if done.code not in allowed:
        return Result(Outcome.UNCLEAR, f"code {done.code} after signals {numbers}: {end}")
    return None


def lost(done: Done, newest: int) -> Result | None:
    """Whether a run did not go on from the newest checkpoint that there was."""
    if "cannot be read" in done.stderr:
        return Result(Outcome.LOST, f"a kill has damaged a checkpoint: {done.stderr[-600:]}")
    found = _FROM.search(done.stderr)
    if found and int(found[1]) < newest:
        return Result(Outcome.LOST, f"from step {found[1]}, where step {newest} was saved")
    return None


def newest_checkpoint(workdir: Path) -> int:
    """The step of the newest checkpoint with its final name; 0 if there is none."""
    folder = workdir / "checkpoints"
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return max((int(name) for name in names if name.isdecimal()), default=0)


if __name__ == "__main__":
    frame.campaign("kills", cases, counts=KILLED)
