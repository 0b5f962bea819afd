"""Runs of two and of four processes of which one is sent a signal at a random moment.

None may hang: all stop at one step and save where one was asked to stop, and end with a message
where one has died: JAX aborts them (SIGABRT), as docs/launch.md says. The same
command then goes on, with as many processes to the same bits, with one to the same losses but for
the order of sums.
"""

import os
import random
import re
import shutil
import signal
import socket
import sys
from pathlib import Path

from tests.campaigns import frame, jobs, moments
from tests.campaigns.comparison import differences
from tests.campaigns.frame import Case, Done, Outcome, Result
from tests.campaigns.kills import (
    DIFFERENT,
    campaign_folder,
    import_noted,
    lost,
    newest_checkpoint,
    noting_modules,
    use_cache,
)
from tests.runs import logged
from tests.simulated import simulated_devices

# After which the others take a process for dead, and what they may take to end then.
HEARTBEAT, PATIENCE = 5, 60.0
SECONDS = 900.0
TOLERANCE = 1e-4
# How often the rest is done by one process.
ALONE = 0.3
# What is said by JAX where another process is gone, before it ends the process that it is in.
_DEATHS = re.compile(r"another task died|error:|preempt", re.IGNORECASE)

JOB = jobs.Job(
    "several processes",
    "gpt_char.py:tiny",
    {
        "task.path": "{data}/text.txt",
        "task.tokenizer.kind": "byte",
        "task.batch_size": 8,
        "task.validation_batch_size": 8,
        "task.context": 16,
        "task.sample_length": 3,
        "train.duration": "8 steps",
        "mesh.fsdp": 2,
    },
)


def reference(count: int) -> Path:
    """The folder of a run of so many processes that nobody struck; made once.

    Raises:
        RuntimeError: if it fails.
    """
    folder = campaign_folder() / f"processes-{count}"
    if not folder.is_dir():
        (folder / "cache").mkdir(parents=True)
        done = started(count, count, folder)
        if any(each.code for each in done):
            raise RuntimeError(f"no run of {count} to compare with: {done[0].stderr[-2000:]}")
        import_noted(folder / "modules-0")
    return folder


def cases(source: random.Random) -> Case:
    """A run of two or four processes, of which one is struck."""
    count, stage = source.choice((2, 2, 4)), source.choice(moments.STAGES)
    victim, seed = source.randrange(count), source.randrange(2**32)
    return Case(
        f"{count} processes, {stage}",
        f"process {victim} of {count} is struck at {stage} (seed {seed})",
        lambda folder: struck(count, victim, stage, folder, random.Random(seed)),
    )


def struck(count: int, victim: int, stage: str, folder: Path, source: random.Random) -> Result:
    """Strikes one process, and runs all to the end."""
    known = moments.moments(reference(count) / f"log-{victim}")
    # Only the first writes files and shows results.
    stage = stage if any(each.stage == stage for each in known) else "steps"
    strike = moments.drawn(known, stage, source)._replace(second=None, group=False)
    shutil.copytree(reference(count) / "cache", folder / "cache", symlinks=True)
    done = started(count, count, folder, victim, strike)
    numbers = moments.sent(folder / f"log-{victim}")
    bad = _badly_ended(done, victim, numbers)
    if bad is None:
        number = 1 if source.random() < ALONE else count
        bad = _to_the_end(count, number, folder)
    return bad._replace(detail=f"{strike}: {bad.detail}") if bad else Result(Outcome.RIGHT)


def started(
    count: int,
    devices: int,
    folder: Path,
    victim: int | None = None,
    strike: moments.Strike | None = None,
) -> list[Done]:
    """So many processes of one run, in `folder / "run"`, when all have ended.

    Args:
        count: of processes.
        devices: of all together.
        folder: has the run and `log-INDEX` of each process.
        victim: index of the process that is struck.
        strike: with what.
    """
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]

    def run(index: int) -> int:
        os.environ.update(simulated_devices(devices // count))
        use_cache(folder / "cache")
        flags = JOB.flags(campaign_folder() / "data")
        who = (
            f"--num_processes={count}",
            f"--process_id={index}",
            f"--heartbeat_seconds={HEARTBEAT}",
        )
        if count > 1:
            flags += [f"--coordinator=127.0.0.1:{port}", *who]
        log = folder / f"log-{index}"
        log.unlink(missing_ok=True)
        quiet = moments.Strike(moments.Moment("", "nothing", 0, 0.0), 0.0, 0, False, None)
        with noting_modules(folder / f"modules-{index}"):
            return moments.observed(
                "train.py",
                *flags,
                f"--workdir={folder / 'run'}",
                folders={"run": folder / "run", "cache": folder / "cache" / "transformer"},
                log=log,
                strike=strike if index == victim or strike is None else quiet,
            )

    return frame.together(
        [lambda index=index: run(index) for index in range(count)],
        seconds=SECONDS,
        megabytes=4096,
    )


def _badly_ended(done: list[Done], victim: int, numbers: list[int]) -> Result | None:
    """What is wrong with how they ended; None if nothing is."""
    codes = [each.code for each in done]
    last = done[victim].seconds if numbers else max(each.seconds for each in done)
    for index, each in enumerate(done):
        end = f"process {index}, codes {codes}: {each.stderr[-1200:]}"
        if each.timed_out or (numbers and each.seconds > last + HEARTBEAT + PATIENCE):
            return Result(Outcome.HANG, end)
        if "Traceback (most recent call last)" in each.stderr:
            return Result(Outcome.TRACEBACK, end)
        if index == victim:
            allowed = {0, *(128 + number for number in numbers), *([143] if numbers else [])}
            allowed = {-signal.SIGKILL} if signal.SIGKILL in numbers else allowed
        else:
            allowed = {0} if not numbers else {0, 1, 143, -signal.SIGABRT}
        if each.code not in allowed:
            return Result(Outcome.UNCLEAR, end)
        if each.code in (1, -signal.SIGABRT) and not _DEATHS.search(each.stderr):
            return Result(Outcome.UNCLEAR, f"no message: {end}")
    return None


def _to_the_end(count: int, number: int, folder: Path) -> Result | None:
    """Goes on with so many processes; what is wrong with the run then, None if nothing is."""
    newest = newest_checkpoint(folder / "run")
    done = started(number, count, folder)
    for each in done:
        bad = frame.ended_badly(each) or lost(each, newest)
        if bad is None and each.code:
            bad = Result(Outcome.UNCLEAR, f"does not go on: code {each.code}: {each.stderr[-800:]}")
        if bad is not None:
            return bad
    if number != count:
        return _other_losses(folder / "run", reference(count) / "run")

    def compare() -> int:
        found = differences(folder / "run", reference(count) / "run")
        print("; ".join(found), file=sys.stderr)
        return DIFFERENT if found else 0

    compared = frame.forked(compare, seconds=SECONDS)
    if compared.code:
        return Result(Outcome.DIFFERENT, compared.stderr[-1500:])
    return None


def _other_losses(workdir: Path, reference: Path) -> Result | None:
    ours, theirs = (
        [(line["step"], line["split"], line["loss"]) for line in logged(folder) if "loss" in line]
        for folder in (workdir, reference)
    )
    same = [line[:2] for line in ours] == [line[:2] for line in theirs]
    if same and all(abs(a[2] - b[2]) < TOLERANCE for a, b in zip(ours, theirs, strict=True)):
        return None
    return Result(Outcome.DIFFERENT, f"on one process: {ours}, not {theirs}")


if __name__ == "__main__":
    frame.campaign("processes", cases, count=10)
