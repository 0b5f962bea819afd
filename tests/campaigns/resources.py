"""Memory, threads, open files and disk over thousands of steps, which must not grow.

python -m tests.campaigns.resources --count=5

What is measured begins after a third of the time: until then programs are compiled, and the
allocator, which keeps what was freed, finds its size. From there on

- memory may grow by 1 kB a step or call, and 4 MB: a single batch, checkpoint or list of metrics
  that is kept each time is more than that, and fragments of freed memory are less;
- threads and open files may be 4 more than before, as many as a save has at work at a moment;
- files in the run folder, logs apart, may take 1.5 times what they took: one checkpoint is written
  before another is deleted.
"""

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import transformer.runs.opening

# The scripts find these imported.
import transformer.training.loop
import transformer.training.validation  # noqa: F401
from tests.campaigns.frame import (
    Case,
    Outcome,
    Result,
    called,
    campaign,
    draws,
    ended_badly,
    forked,
)
from tests.campaigns.generated import write_data
from tests.campaigns.jobs import named
from transformer.decoding.sample import write
from transformer.ops.logits import Sampling
from transformer.training.metrics import MetricsWriter

# Of a case; a slow machine may need most of it.
SECONDS = 1800.0
WARM_UP = 1 / 3
KILOBYTES_A_STEP, MEGABYTES = 1.0, 4.0
MORE_HANDLES, MORE_DISK = 4, 1.5
_LOGS = ("metrics.jsonl", "tensorboard")


class Sample(NamedTuple):
    """What a process holds at a moment.

    Attributes:
        count: steps or calls so far.
        kilobytes: resident.
        threads: of it.
        files: open.
        disk: bytes in its folder, logs apart.
    """

    count: int
    kilobytes: int
    threads: int
    files: int
    disk: int


def _sampled(folder: Path, count: int) -> Sample:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return Sample(
        count,
        pages * os.sysconf("SC_PAGE_SIZE") // 1024,
        len(list(Path("/proc/self/task").iterdir())),
        len(list(Path("/proc/self/fd").iterdir())),
        _disk(folder),
    )


def _disk(folder: Path) -> int:
    """Bytes of the files below a folder, logs apart; what goes meanwhile counts nothing."""
    total = 0
    # Unlike `rglob`, it goes on where a folder has gone.
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in _LOGS]
        for name in set(names) - set(_LOGS):
            with contextlib.suppress(OSError):
                total += (Path(place) / name).stat().st_size
    return total


class Watch:
    """Samples of this process, taken by a thread of it several times a second."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        self._samples: list[Sample] = []
        threading.Thread(target=self._take, daemon=True).start()

    def at(self, count: int) -> None:
        """So many steps or calls are done."""
        self._count = count

    def write(self, path: Path) -> None:
        """Keeps the samples for the other process."""
        path.write_text(json.dumps(self._samples), "utf-8")

    def _take(self) -> None:
        while True:
            if self._count:
                self._samples.append(_sampled(self._folder, self._count))
            time.sleep(0.1)


def grown(samples: list[Sample]) -> list[str]:
    """What has grown beyond its bound, in words."""
    most = samples[-1].count
    later = [sample for sample in samples if sample.count > WARM_UP * most]
    half = [sample.count > (1 + WARM_UP) / 2 * most for sample in later]
    if len(later) < 8 or not any(half) or all(half):
        return [f"{len(later)} samples are too few"]
    columns = np.array(later, np.float64)
    first, second = columns[~np.array(half)], columns[half]
    steps = second[:, 0].mean() - first[:, 0].mean()
    # A median is not that of a moment at which a checkpoint is written.
    before, after = np.median(first, 0), np.median(second, 0)
    kilobytes = after[1] - before[1]
    found = []
    if kilobytes > KILOBYTES_A_STEP * steps + MEGABYTES * 1024:
        found.append(f"memory grew by {kilobytes:,.0f} kB in {steps:,.0f} steps")
    for place, name in ((2, "threads"), (3, "open files")):
        if after[place] > before[place] + MORE_HANDLES:
            found.append(f"{name} grew from {before[place]} to {after[place]}")
    if second[:, 4].max() > MORE_DISK * max(first[:, 4].max(), 1):
        found.append(f"the disk grew from {first[:, 4].max():,} to {second[:, 4].max():,} bytes")
    return found


def _told(samples: list[Sample]) -> str:
    """The slope of memory, for people."""
    most = samples[-1].count
    later = np.array([s for s in samples if s.count > WARM_UP * most], np.float64)
    slope = np.polyfit(later[:, 0], later[:, 1], 1)[0]
    held = f"{later[-1, 1] / 1024:,.0f} MB, {later[-1, 2]:.0f} threads, {later[-1, 3]:.0f} files"
    return f"{most} steps or calls, {1024 * slope:,.0f} bytes each, {held}"


def training(name: str, steps: int) -> Case:
    """A run that is evaluated and saved every few steps."""

    def run(folder: Path) -> Result:
        def train() -> int:
            write_data(folder)
            known, watch = MetricsWriter.write, Watch(folder / "run")

            def counted(writer: Any, step: int, *others: Any) -> None:
                watch.at(step)
                known(writer, step, *others)

            MetricsWriter.write = counted  # type: ignore[method-assign]
            settings = {"duration": steps, "log_every": 5, "evaluate_every": 10, "save_every": 5}
            flags = [f"--config.train.{key}={value} steps" for key, value in settings.items()]
            try:
                return called(
                    "train.py", *named(name).flags(folder), *flags, f"--workdir={folder / 'run'}"
                )
            finally:
                watch.write(folder / "samples")

        return _judged(train, folder)

    return Case("training", f"{steps} steps of: {name}", run)


def using(what: str, name: str, calls: int) -> Case:
    """A run that is used, or opened, again and again by one process."""

    def run(folder: Path) -> Result:
        def use() -> int:
            from transformer.runs.evaluating import evaluate_run
            from transformer.runs.opening import open_run

            write_data(folder)
            with_few = ["--config.train.duration=6 steps", f"--workdir={folder / 'run'}"]
            try:
                called("train.py", *named(name).flags(folder), *with_few)
            except SystemExit as end:
                if end.code:
                    return int(end.code)
            watch = Watch(folder / "run")
            opened: Any = open_run(folder / "run")
            for count in range(calls):
                if what == "open":
                    open_run(folder / "run")
                elif what == "evaluate":
                    evaluate_run(opened, opened.task.load(folder / "run"))
                elif what == "generate":
                    tokenizer = opened.task.load_tokenizer(folder / "run")
                    given = (opened.model, opened.params, tokenizer, ["the "])
                    write(*given, max_new_tokens=9, sampling=Sampling(), seed=count)
                else:
                    lines, model = ["ann sees", "the cat"], (opened.model, opened.params)
                    list(opened.task.predict(*model, folder / "run", lines))
                watch.at(count + 1)
            watch.write(folder / "samples")
            return 0

        return _judged(use, folder)

    return Case(what, f"{calls} times, of: {name}", run)


def _judged(function: Callable[[], int], folder: Path) -> Result:
    done = forked(function, seconds=SECONDS)
    bad = ended_badly(done)
    if bad is not None:
        return bad
    if done.code:
        return Result(Outcome.UNCLEAR, f"code {done.code}: {done.stderr[-800:]}")
    samples = [Sample(*one) for one in json.loads((folder / "samples").read_text("utf-8"))]
    found = grown(samples)
    print(_told(samples), flush=True)
    return Result(Outcome.MEMORY, "; ".join(found)) if found else Result(Outcome.RIGHT)


WRITTEN = "language modeling, average, microbatches, several steps at once"
KINDS = (
    lambda source: training(WRITTEN, 3000),
    lambda source: training("classes of images, augmented, average", 1000),
    lambda source: training("translation, rows by length", 1000),
    lambda source: using("evaluate", "translation, rows by length", 100),
    lambda source: using("generate", WRITTEN, 300),
    lambda source: using("predict", "classes of texts", 300),
    lambda source: using("open", "classes of texts", 100),
)

if __name__ == "__main__":
    jax.config.update("jax_disable_most_optimizations", True)
    campaign("resources", draws(KINDS), count=len(KINDS))
