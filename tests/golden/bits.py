"""What tiny runs of all tasks compute, to the bit: to be compared before and after a large change.

python -m tests.golden.bits before.json
python -m tests.golden.bits after.json --compare=before.json

Of each job: the losses of 20 steps, the batches of the first and the thousandth step, the arrays of
the last checkpoint, and what the scripts that evaluate, generate and predict write. Bits are those
of one machine and one version of JAX: the files are not kept in the repository.
"""

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np

from tests.campaigns.generated import write_data
from tests.campaigns.jobs import JOBS, STEPS, Job, named
from tests.campaigns.tiny_runs import array_notes, losses
from tests.campaigns.warm import Warm

DURATION = 20
SEED, LAST = 0, 1000
# What is asked of each task that answers lines, and of those of residues.
LINES = {
    "residues": "MKTAYI<mask>KQR\nACD<mask>FGHIK\n",
    "masked_lm": "ann sees the [MASK]\nbob hears the [MASK]\n",
    "text_classification": "ann sees the cat\nbob hears tom\n",
    "tagging": "ann sees mister bob\ntom sees mister eve\n",
    "question_answering": "who has the coat?\tann has the hat. bob has the coat.\n",
    "translation": "ann sees the cat\nbob hears tom near the house\n",
    "text_to_text": "cat\nhouse\n",
    "completion": "cat\nhouse\n",
}
# How the texts begin that models go on with.
PROMPTS = {"language_modeling": "ann ", "chess_moves": "a2a4 a7a5"}


def bits(warm: Warm, job: Job, folder: Path) -> dict[str, object]:
    """Trains the run of a job in `folder / job.name`, and those it begins from before it."""
    workdir = folder / job.name
    base = folder / job.base if job.base else None
    if base is not None and not base.exists():
        bits(warm, named(job.base), folder)
    flags = job.flags(folder / "data", base)
    for key, value in {
        "train.duration": f"{DURATION} steps",
        "train.evaluate_every": "10 steps",
        "train.save_every": "10 steps",
    }.items():
        flags.append(f"--config.{key}={value}")
    _done(warm, "train.py", *flags, f"--workdir={workdir}")
    found: dict[str, object] = {
        "losses": [list(line) for line in losses(workdir, -1)],
        "arrays": _digest(json.dumps(array_notes(workdir, DURATION), sort_keys=True)),
        "batches": _batches(workdir),
    }
    settings = json.loads((workdir / "config.json").read_text("utf-8"))["task"]
    task = settings["name"]
    where = f"--workdir={workdir}"
    found["evaluate"] = _done(warm, "evaluate.py", "--json", where)
    if task in PROMPTS:
        writing = (f"--prompt={PROMPTS[task]}", "--max_new_tokens=12", "--seed=3", "--json")
        found["generate"] = _done(warm, "generate.py", *writing, where)
    elif task in ("translation", "text_to_text"):
        found["generate"] = _done(warm, "generate.py", "--json", where, stdin=LINES[task])
    elif task == "image_classification":
        pictures = sorted(str(path) for path in (folder / "data" / "images").rglob("0.png"))
        found["predict"] = _done(warm, "predict.py", "--json", where, *pictures)
    elif task in LINES:
        residues = settings["tokenizer"]["kind"] == "residues"
        line = LINES["residues" if residues else task]
        if job.settings.get("task.second"):
            line = "".join(f"{text}\t{text}\n" for text in line.splitlines())
        found["predict"] = _done(warm, "predict.py", "--json", where, stdin=line)
    # Paths differ from run to run.
    return json.loads(json.dumps(found).replace(str(folder), "FOLDER"))


def _batches(workdir: Path) -> list[str]:
    from transformer.training.experiment import prepare
    from transformer.training.saved_runs import read_config

    experiment = prepare(read_config(workdir), workdir)
    batches = experiment.data.train_batches(seed=SEED, num_steps=LAST)
    return [
        _digest(*(np.asarray(x).tobytes() for x in jax.tree.leaves(batches[step])))
        for step in (0, LAST - 1)
    ]


def _digest(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()[:32]


def _done(warm: Warm, script: str, *flags: str, stdin: str = "") -> str:
    done = warm.script(script, *flags, stdin=stdin, seconds=300.0)
    if done.code:
        raise SystemExit(f"{script} {' '.join(flags)}\n{done.stderr}")
    return done.stdout if script != "train.py" else ""


def main() -> None:
    """Writes what is found, and says which jobs differ from another file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--compare", type=Path, help="a file that this has written before")
    parser.add_argument("--only", default="", help="jobs whose names have this")
    options = parser.parse_args()
    assert DURATION > STEPS
    # This process computes batches, too: a second one must not be forked from its threads.
    found, warm = {}, Warm(most=1000, megabytes=12000.0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data").mkdir()
        write_data(folder / "data")
        for job in JOBS:
            if options.only in job.name:
                found[job.name] = bits(warm, job, folder)
                print(f"done: {job.name}", flush=True)
    warm.end()
    options.output.write_text(json.dumps(found, indent=1), "utf-8")
    if options.compare is None:
        return
    before = json.loads(options.compare.read_text("utf-8"))
    other = 0
    for job, parts in found.items():
        for part, value in parts.items():
            if before[job][part] != value:
                other += 1
                print(f"{job}: {part} differs\n  {before[job][part]}\n  {value}")
    print(f"{sum(map(len, found.values()))} parts of {len(found)} jobs, {other} differ.")
    sys.exit(other > 0)


if __name__ == "__main__":
    main()
