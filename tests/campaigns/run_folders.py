"""Spoils run folders, one file at a time, and goes on with them, evaluates, asks and exports.

python -m tests.campaigns.run_folders --seconds=60

Allowed are the results of the untouched folder to the bit, one message that names what is wrong,
and a fall-back to an older checkpoint that says so. A checkpoint that was there is kept somewhere.
"""

import functools
import json
import random
import re
import shutil
import sys
from pathlib import Path

from tests.campaigns import tiny_runs
from tests.campaigns.frame import Case, Outcome, Result, campaign, ended_badly, refused
from tests.campaigns.spoiling import spoil
from tests.campaigns.tiny_runs import STEPS, TinyRun, array_notes, losses
from tests.campaigns.warm import Warm

# Whoever falls back to something else says one of these.
_SAID = ("cannot be read", "is damaged", "is no checkpoint", "is used in its place")
# What a job wrote that needs no protection, and what another campaign is about.
_SIDE = ("sample.txt", "curves.png", "predictions.jsonl", "confusion.png", "attention.png")


def _chosen(source: random.Random, folder: Path) -> Path:
    """A file or folder of a run; those that change results more often than they would be."""
    top = sorted(path for path in folder.iterdir() if path.is_file())
    checkpoints = folder / "checkpoints"
    inner = sorted(path for path in checkpoints.rglob("*") if path.is_file())
    notes = [path for path in inner if path.name == "metadata"]
    folders = sorted(path for path in checkpoints.rglob("*") if path.is_dir())
    important = [path for path in top if path.name not in (*_SIDE, "metrics.jsonl")]
    kinds = [important, important, inner, inner, notes, [*folders, checkpoints], top]
    return source.choice(source.choice(kinds))


def _case(warm: Warm, runs: list[TinyRun], source: random.Random) -> Case:
    run = source.choice(runs)
    path = _chosen(source, run.folder).relative_to(run.folder)
    work = source.choice(["resume", "resume", *run.jobs])
    choice = source.choice(["best", "best", "last", str(STEPS[-1])])
    seed = source.random()
    how = "resumed" if work == "resume" else "opened"
    kind = "checkpoint" if path.parts[0] == "checkpoints" else path.name

    def carried_out(folder: Path) -> Result:
        copy = folder / "run"
        shutil.copytree(run.folder, copy)
        way = spoil(random.Random(seed), copy / path, run.other / path)
        names = _names(path)
        there = _steps(copy)
        if work == "resume":
            result = _resumed(warm, run, copy, names)
        else:
            result = _opened(warm, run, copy, folder, work, choice, names)
        lost = there - _steps(copy)
        if lost:
            result = Result(Outcome.LOST, f"checkpoints {sorted(lost)} are gone; {result}")
        return result._replace(detail=f"{way}: {result.detail}")

    what = f"{run.name}: {path} spoiled (seed {seed}), then {work}"
    what += "" if work == "resume" else f" with --checkpoint={choice}"
    return Case(f"{kind}, {how}", what, carried_out)


def _names(path: Path) -> list[str]:
    """What a message about a spoiled file may name."""
    if path.parts[0] != "checkpoints":
        return [path.name, "config."] if path.name == "config.json" else [path.name]
    if len(path.parts) == 1:
        return [path.name]
    return ["/".join(path.parts[:2]), f"step {path.parts[1]}"]


def _steps(workdir: Path) -> set[str]:
    """The checkpoints that a folder holds, wherever they lie: those with parameters, by content."""
    found = set()
    for place in ("checkpoints", "unreadable_checkpoints"):
        for item in (workdir / place).glob("*/params"):
            name = item.parent.name.partition("-")[0]
            found.add(name)
    return found


def _resumed(warm: Warm, run: TinyRun, workdir: Path, names: list[str]) -> Result:
    done = tiny_runs.train(warm, run.training, workdir)
    if done.code != 0 or ended_badly(done):
        return refused(done, names=names)
    begun = re.search(r"Resuming .* from step (\d+)", done.stderr)
    step = int(begun[1]) if begun else 0
    if array_notes(workdir) != array_notes(run.end):
        return Result(Outcome.DIFFERENT, f"from step {step}, other parameters: {done.stderr}")
    if losses(workdir, step) != losses(run.end, step):
        return Result(Outcome.DIFFERENT, f"from step {step}, other losses: {done.stderr}")
    wrong = _left_wrong(run.end, workdir)
    if wrong:
        return Result(Outcome.DIFFERENT, f"{wrong} is left wrong: {done.stderr}")
    said = any(text in done.stderr for text in _SAID)
    return Result(Outcome.FELL_BACK if said else Outcome.RIGHT)


def _left_wrong(end: Path, workdir: Path) -> str:
    """A file that others need and that is not what it should be."""
    for path in end.iterdir():
        if path.suffix == ".json" and path.name != "config.json":
            ours = workdir / path.name
            try:
                same = json.loads(path.read_bytes()) == json.loads(ours.read_bytes())
            except (OSError, ValueError):
                same = False
            if not same:
                return path.name
    return ""


def _opened(
    warm: Warm, run: TinyRun, workdir: Path, folder: Path, work: str, choice: str, names: list[str]
) -> Result:
    job = run.jobs[work]
    done, answer = tiny_runs.perform(warm, job, workdir, folder, f"--checkpoint={choice}")
    if done.code != 0 or ended_badly(done):
        # Where all checkpoints are another run's, the config is not theirs.
        return refused(done, names=[*names, "the checkpoint of step"])
    right = run.answers[work, run.best if choice == "best" else STEPS[-1]]
    said = any(text in done.stderr for text in _SAID)
    if answer == right:
        return Result(Outcome.FELL_BACK if said else Outcome.RIGHT)
    others = [step for step in STEPS if run.answers[work, step] == answer]
    # A folder that is gone altogether leaves nothing to say.
    gone = names[0].startswith("checkpoints/") and not (workdir / names[0]).exists()
    if others and (said or gone) and choice in ("best", "last"):
        return Result(Outcome.FELL_BACK)
    return Result(Outcome.DIFFERENT, f"{answer} instead of {right}: {done.stderr}")


def main() -> None:
    """Makes the runs once, and spoils copies of them."""
    tiny_runs.keep_compiled()
    warm = Warm()
    try:
        runs = tiny_runs.tiny_runs(warm)
        print(f"The runs lie in {runs[0].folder.parents[1]}.", file=sys.stderr, flush=True)
        campaign("run_folders", functools.partial(_case, warm, runs), count=1000)
    finally:
        warm.end()


if __name__ == "__main__":
    main()
