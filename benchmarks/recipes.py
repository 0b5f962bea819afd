"""Runs recipes and writes what they reach into the heads of their configs.

python benchmarks/recipes.py --workdir=runs/recipes --recipe=tags --seeds=0,1,2
python benchmarks/recipes.py --check

`benchmarks/recipes.toml` says what a recipe is. Only the lines between two marks of a head are
written, in the order of that file; those of recipes that were not run stay. A run that is finished
is not run again, and one that was stopped goes on, so that the same command can be repeated. A
recipe that exceeds its minutes is stopped, and nothing is written for it. `--check` names the
recipes whose commands or configs have changed since, and those never measured; its exit code is
then 1.
"""

import argparse
import ast
import dataclasses
import datetime
import hashlib
import json
import os
import re
import resource
import shlex
import statistics
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import trivial

ROOT = Path(__file__).parents[1]
RECIPES = Path(__file__).parent / "recipes.toml"
BEGIN, END = "Measured by benchmarks/recipes.py:", "(End of what was measured.)"
NOTHING = "- nothing yet"
# The id of a recipe in the last line of its entry.
_ENTRY = re.compile(r"^- (?:.|\n)*?\[(?P<name>[\w-]+) (?P<id>[0-9a-f]{8})\]$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is run and where the result is written.

    Attributes:
        name: its name in the file.
        config: the config whose head says what was measured.
        title: what the entry there begins with.
        commands: scripts with their flags, in the order in which they are run.
        score: the name of the score in the last command's `metrics.jsonl`.
        unit: the name of the score for people.
        minutes: the most minutes of one seed.
        trivial: the methods to compare with, of `benchmarks/trivial.py`; empty for none.
        scale: what the score is multiplied by.
    """

    name: str
    config: str
    title: str
    commands: tuple[str, ...]
    score: str
    unit: str
    minutes: float
    trivial: str = ""
    scale: float = 1.0

    def id(self, root: Path) -> str:
        """Changes with the commands, the score and the code of configs, not with their heads."""
        parts = [*self.commands, self.score, self.trivial]
        for path in sorted(set(re.findall(r"configs/\w+\.py", " ".join(self.commands)))):
            tree = ast.parse((root / path).read_text("utf-8"))
            # The first statement is the head.
            parts += [ast.dump(node) for node in tree.body[1:]]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


@dataclasses.dataclass(frozen=True)
class Result:
    """What one seed reached.

    Attributes:
        seed: the seed.
        score: the score, scaled.
        seconds: processor time of the commands, user and system.
        shared_seconds: that of the commands that all seeds share.
    """

    seed: int
    score: float
    seconds: float
    shared_seconds: float


def read_recipes(path: Path) -> dict[str, Recipe]:
    """The recipes of a file, by name."""
    content = tomllib.loads(path.read_text("utf-8"))
    return {
        name: Recipe(name=name, **{**values, "commands": tuple(values["commands"])})
        for name, values in content.items()
    }


def run(
    recipe: Recipe, seed: int, workdir: Path, values: Mapping[str, str], root: Path = ROOT
) -> Result:
    """Runs the commands of a recipe that are not finished.

    Raises:
        subprocess.TimeoutExpired: if they take longer than the recipe's minutes.
        subprocess.CalledProcessError: if one fails.
        SystemExit: if a value is missing.
    """
    folders = {"runs": workdir / f"{recipe.name}-{seed}", "shared": workdir / "shared"}
    left = 60.0 * recipe.minutes
    own, shared, last = 0.0, 0.0, folders["runs"]
    for command in recipe.commands:
        try:
            filled = command.format(seed=seed, **folders, **values)
        except KeyError as error:
            name = error.args[0]
            raise SystemExit(f"{recipe.name}: give --set {name}=PATH, for {command}") from None
        words = shlex.split(filled)
        last = Path(next(w for w in words if w.startswith("--workdir=")).partition("=")[2])
        seconds, wall = _seconds(words, last, left, root)
        left -= wall
        if "{shared}" in command.partition("--workdir=")[2].split("/")[0]:
            shared += seconds
        else:
            own += seconds
    return Result(seed, recipe.scale * _score(last, recipe.score), own, shared)


def _seconds(words: list[str], folder: Path, limit: float, root: Path) -> tuple[float, float]:
    """Runs a command unless its folder says that it is done; its processor and wall time.

    The times of all its parts are in a file beside the folder of the run.
    """
    notes = folder.with_name(f"{folder.name}.times.json")
    times = json.loads(notes.read_text()) if notes.exists() else {"seconds": 0.0, "done": False}
    if times["done"]:
        return times["seconds"], 0.0
    folder.parent.mkdir(parents=True, exist_ok=True)
    before, begun = _used(), datetime.datetime.now()
    environment = {**os.environ, "PYTHONPATH": str(root)}
    process = subprocess.Popen([sys.executable, *words], cwd=root, env=environment)
    try:
        code = process.wait(max(1.0, limit))
        times["done"] = code == 0
        if code:
            raise subprocess.CalledProcessError(code, words)
    finally:
        if process.poll() is None:
            # A training saves what it has.
            process.terminate()
            process.wait()
        times["seconds"] += _used() - before
        notes.write_text(json.dumps(times))
    return times["seconds"], (datetime.datetime.now() - begun).total_seconds()


def _used() -> float:
    """Processor time of all processes that were started and have ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _score(folder: Path, name: str) -> float:
    """The score that a run has ended with."""
    rows = map(json.loads, (folder / "metrics.jsonl").read_text("utf-8").splitlines())
    return [row[name] for row in rows if row["split"] == "final"][-1]


def entry(
    recipe: Recipe, results: Sequence[Result], others: Mapping[str, float], identity: str
) -> str:
    """What the head of a config says about a recipe, as lines of at most 98 characters.

    Args:
        recipe: what was run.
        results: what each seed reached.
        others: the scores of methods to compare with, by name.
        identity: `recipe.id` before it was run.
    """
    scores = [result.score for result in results]
    each = ""
    if len(results) > 1:
        seeds = ", ".join(f"{result.seed}" for result in results)
        each = f" ({', '.join(f'{score:.1f}' for score in scores)}; seeds {seeds})"
    minutes = statistics.mean(result.seconds for result in results) / 60.0
    shared = max(result.shared_seconds for result in results) / 60.0
    before = f" after {shared:.1f} minutes that all seeds share" if shared >= 0.05 else ""
    text = f"- {recipe.title}: {recipe.unit} {statistics.mean(scores):.1f}{each}"
    if others:
        text += "; " + ", ".join(f"{name} {score:.1f}" for name, score in others.items())
    text += (
        f"; {minutes:.1f} minutes of processor time a run{before}; {_machine()}, "
        f"{datetime.date.today()} [{recipe.name} {identity}]"
    )
    return _wrapped(text)


def _wrapped(text: str) -> str:
    """Lines of at most 98 characters; the last words, in brackets, stay together."""
    begun, bracket, rest = text.rpartition(" [")
    lines, line = [], ""
    for word in [*begun.split(), f"{bracket.strip()}{rest}"]:
        if line and len(line) + 1 + len(word) > 98:
            lines.append(line)
            line = f"  {word}"
        else:
            line = f"{line} {word}" if line else word
    return "\n".join([*lines, line])


def _machine() -> str:
    """The processor, and how many of its cores this process may use."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    found = re.search(r"model name\s*:\s*(.+)", text)
    cores = len(os.sched_getaffinity(0))
    return f"{cores} core{'s' if cores > 1 else ''} of {found[1] if found else 'this machine'}"


def entries(head: str) -> dict[str, str]:
    """The entries of a head, by the name of their recipes."""
    block = head.partition(BEGIN)[2].partition(END)[0]
    return {match["name"]: match[0] for match in _ENTRY.finditer(block)}


def rewritten(text: str, new: Mapping[str, str], order: Sequence[str]) -> str:
    """The text of a config with new entries in its head; all else stays.

    Args:
        text: the file.
        new: entries by the name of their recipes.
        order: the names of all recipes.

    Raises:
        ValueError: if the file has no pair of marks.
    """
    if BEGIN not in text or END not in text.partition(BEGIN)[2]:
        raise ValueError(f"put two lines into its docstring: {BEGIN!r} and {END!r}")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    found = entries(text) | new
    lines = "\n".join(found[name] for name in order if name in found) or NOTHING
    return f"{before}{BEGIN}\n\n{lines}\n\n{END}{after}"


def check(recipes: Mapping[str, Recipe], root: Path = ROOT) -> list[str]:
    """Sentences about recipes that were not measured as they are now."""
    found = []
    for recipe in recipes.values():
        known = entries((root / recipe.config).read_text("utf-8"))
        if recipe.name not in known:
            found.append(f"{recipe.config}: {recipe.name} was not measured.")
        elif not known[recipe.name].endswith(f"{recipe.id(root)}]"):
            found.append(f"{recipe.config}: {recipe.name} has changed since it was measured.")
    return found


def main() -> int:
    """Runs and writes, or checks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    recipes = read_recipes(RECIPES)
    parser.add_argument("--recipe", action="append", choices=sorted(recipes), default=[])
    parser.add_argument("--seeds", default="0", help="separated by commas")
    parser.add_argument("--workdir", type=Path, help="the folder of the runs")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    if given.check:
        found = check(recipes)
        print("\n".join(found) or "All recipes were measured as they are.")
        return 1 if found else 0
    if not given.recipe or given.workdir is None:
        parser.error("give --workdir and at least one --recipe, or --check")
    values = dict(pair.split("=", 1) for pair in given.set)
    for name in given.recipe:
        recipe = recipes[name]
        workdir, identity = given.workdir.resolve(), recipe.id(ROOT)
        try:
            results = [run(recipe, int(seed), workdir, values) for seed in given.seeds.split(",")]
        except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
        others = trivial.TASKS[recipe.trivial]() if recipe.trivial else {}
        text = entry(recipe, results, others, identity)
        print(text)
        path = ROOT / recipe.config
        path.write_text(rewritten(path.read_text("utf-8"), {name: text}, list(recipes)), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
