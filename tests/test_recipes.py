"""`benchmarks/recipes.py`: runs, heads of configs, and what has changed since."""

import json
import shutil
import subprocess
import sys

import pytest

from tests.pages import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import recipes

TRAIN = """\
import json, sys
from pathlib import Path
flags = dict(word.lstrip("-").split("=", 1) for word in sys.argv[1:])
folder = Path(flags["workdir"])
folder.mkdir(parents=True)
if "again" in flags:
    raise SystemExit(4)
rows = [{"split": "validation", "f1": 0.1}, {"split": "final", "f1": 0.5 + int(flags["seed"])}]
(folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
"""
CONFIG = f'''"""Does a thing.

{recipes.BEGIN}

{recipes.NOTHING}

{recipes.END}

Text that stays.
"""

NUMBER = 1
'''


@pytest.fixture
def root(tmp_path):
    """A project with one script and one config."""
    for path, text in (("scripts/train.py", TRAIN), ("configs/some.py", CONFIG)):
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).write_text(text)
    return tmp_path


def recipe(*more, **changes):
    command = "scripts/train.py --seed={seed} --config=configs/some.py --workdir="
    commands = (f"{command}{{shared}}/first", f"{command}{{runs}}/last", *more)
    values = {"score": "f1", "unit": "F1", "minutes": 1, "scale": 100, **changes}
    return recipes.Recipe("some", "configs/some.py", "from nothing", commands, **values)


def measured(root, seeds=(0, 2)):
    one = recipe()
    results = [recipes.run(one, seed, root / "runs", {}, root) for seed in seeds]
    return one, recipes.entry(one, results, {"a list": 12.34}, one.id(root))


def test_a_recipe_is_run_and_its_head_is_written(root):
    one, text = measured(root)
    assert text.startswith("- from nothing: F1 150.0 (50.0, 250.0; seeds 0, 2); a list 12.3; 0.0 ")
    assert max(map(len, text.splitlines())) <= 98
    path = root / "configs" / "some.py"
    assert recipes.check({"some": one}, root) == ["configs/some.py: some was not measured."]
    path.write_text(recipes.rewritten(CONFIG, {"some": text}, ["other", "some"]))
    head, _, rest = path.read_text().partition(text)
    assert head == CONFIG.partition(recipes.NOTHING)[0]
    assert rest == "\n\n" + recipes.END + CONFIG.partition(recipes.END)[2]
    assert recipes.check({"some": one}, root) == []
    # Again with another entry: the first stays, in the order of the recipes.
    other = text.replace("[some ", "[other ")
    both = recipes.rewritten(path.read_text(), {"other": other}, ["other", "some"])
    assert list(recipes.entries(both).values()) == [other, text]


def test_what_has_changed_since(root):
    one, text = measured(root, (0,))
    path = root / "configs" / "some.py"
    path.write_text(recipes.rewritten(CONFIG, {"some": text}, ["some"]))
    stays = path.read_text().replace("Text that stays.", "Other text.")
    path.write_text(stays)
    assert recipes.check({"some": one}, root) == []
    changed = ["configs/some.py: some has changed since it was measured."]
    path.write_text(stays.replace("NUMBER = 1", "NUMBER = 2"))
    assert recipes.check({"some": one}, root) == changed
    path.write_text(stays)
    assert recipes.check({"some": recipe(score="accuracy")}, root) == changed


def test_what_is_finished_is_not_run_again(root):
    one = recipe()
    first = recipes.run(one, 0, root / "runs", {}, root)
    # The script would refuse a folder that is there.
    assert recipes.run(one, 0, root / "runs", {}, root) == first
    assert first.seconds > 0 and first.shared_seconds > 0


def test_failures_and_limits(root):
    failing = recipe("scripts/train.py --again=1 --seed={seed} --workdir={runs}/more")
    with pytest.raises(subprocess.CalledProcessError):
        recipes.run(failing, 0, root / "runs", {}, root)
    notes = root / "runs" / "some-0" / "more.times.json"
    assert not json.loads(notes.read_text())["done"]
    with pytest.raises(SystemExit, match="give --set FOLDER=PATH"):
        recipes.run(recipe("scripts/x.py --source={FOLDER}"), 0, root / "runs", {}, root)
    shutil.rmtree(root / "runs")
    (root / "scripts" / "train.py").write_text("import time\ntime.sleep(60)\n")
    with pytest.raises(subprocess.TimeoutExpired):
        recipes.run(recipe(minutes=0.01), 0, root / "runs", {}, root)


def test_marks_are_needed():
    with pytest.raises(ValueError, match="put two lines"):
        recipes.rewritten('"""A config."""\n', {}, [])


def test_the_recipes_of_the_project():
    """All have marks in their configs, and commands that are there."""
    found = recipes.read_recipes(recipes.RECIPES)
    for one in found.values():
        assert one.id(ROOT)
        text = (ROOT / one.config).read_text()
        assert recipes.rewritten(text, {}, list(found)) == text
        assert all((ROOT / command.split()[0]).exists() for command in one.commands)
        assert not one.trivial or one.trivial in recipes.trivial.TASKS
