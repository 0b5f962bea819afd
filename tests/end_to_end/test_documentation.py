"""The commands of README.md and the Python of all pages run, on a tiny model."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from tests.end_to_end.conftest import ROOT, call, fails
from tests.pages import PAGES, commands, name, python

SMALLER = [
    "--config.model.num_layers=1",
    "--config.model.width=16",
    "--config.model.num_heads=2",
    "--config.model.context=32",
    "--config.task.batch_size=2",
    "--config.task.sample_length=3",
    "--config.train.duration=2 steps",
    "--config.train.validation_batches=1",
    "--config.train.tensorboard=False",
]
# This page has a test of its own, which trains until its head is there.
PYTHON = [page for page in PAGES if python(page) and page.name != "previous_token_head.md"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with what the first command of README.md makes, smaller."""
    folder = tmp_path_factory.mktemp("reader")
    script, *flags = commands(ROOT / "README.md")[0]
    assert script == "scripts/train.py" and "--workdir=runs/gpt_char" in flags
    flags = [flag.replace("configs/", f"{ROOT}/configs/") for flag in flags]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = call("train.py", *flags, *SMALLER)
        assert done.returncode == 0, done.stderr
        yield folder


def test_the_commands_of_the_readme(trained):
    others = commands(ROOT / "README.md")[1:]
    assert {script for script, *_ in others} == {"scripts/generate.py", "scripts/explain.py"}
    for script, *flags in others:
        done = call(script.removeprefix("scripts/"), *flags)
        assert done.returncode == 0, done.stderr
    assert (trained / "page.html").stat().st_size > 100_000


# Commands of other pages that need the run of README.md, or none.
OF_OTHERS = [
    "docs/text.md scripts/evaluate.py --workdir=runs/gpt_char",
    "docs/text.md scripts/generate.py --workdir=runs/gpt_char --prompt=ROMEO: --temperature=0.8",
    "docs/start.md scripts/train.py --config=configs/gpt_char.py --workdir=runs/wide",
    "docs/start.md scripts/train.py --config=configs/gpt_char.py --workdir=runs/mine",
    "docs/start.md scripts/sweep.py --config=configs/gpt_char.py:tiny --workdir=runs/four",
    "docs/runs.md scripts/train.py --config=configs/gpt_char.py:small --dry_run",
]


@pytest.mark.parametrize("begin", OF_OTHERS)
def test_a_command_of_another_page(begin, trained):
    page, script, *_ = begin.split()
    words = [words for words in commands(ROOT / page) if begin in " ".join([page, *words])]
    flags = [flag for flag in words[0][1:] if not flag.startswith("--config.model.width")]
    if script in ("scripts/train.py", "scripts/sweep.py"):
        flags = [flag.replace("configs/", f"{ROOT}/configs/") for flag in flags] + SMALLER
    Path("my.txt").write_text("What it wrote, it reads again.\n" * 200, "utf-8")
    done = call(script.removeprefix("scripts/"), *flags)
    assert done.returncode == 0, done.stderr
    folders = [flag.removeprefix("--workdir=") for flag in flags if flag.startswith("--workdir=")]
    assert all((trained / folder).is_dir() for folder in folders)


# The numbers of a notebook's cell `parameters`, smaller.
NOTEBOOKS = {
    "first_model": {
        "steps": 2,
        "batch": 2,
        "context": 8,
        "width": 8,
        "layers": 1,
        "heads": 2,
        "letters_to_write": 3,
    },
    # As long as what docs/explainer.md traces.
    "look_inside": {"prompt": "ROMEO: But soft, what light"},
}


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_a_notebook(path, trained):
    """Its cells in one namespace, without the server of notebooks."""
    names = {}
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), path.name, "exec"), names)
            if "parameters" in cell["metadata"].get("tags", ()):
                assert NOTEBOOKS[path.stem].keys() <= names.keys()
                names |= NOTEBOOKS[path.stem]
    plt.close("all")
    shown = names["losses"] if path.stem == "first_model" else names["harm"]
    assert np.isfinite(np.array(shown)).all() and np.any(shown)
    assert path.stat().st_size < 200_000


@pytest.mark.parametrize("page", PYTHON, ids=name)
def test_the_python_of_a_page(page, trained, capsys):
    names = {}
    for block in python(page):
        exec(compile(block, name(page), "exec"), names)
    said = capsys.readouterr().out
    assert "False" not in said


def test_the_list_of_configs():
    done = call("configs.py")
    assert done.returncode == 0, done.stderr
    for path in (ROOT / "configs").glob("*.py"):
        assert f"configs/{path.name}" in done.stdout
    assert ":tiny" in done.stdout and "needs [data]" in done.stdout
    assert "1.832" in call("configs.py", "gpt_char").stdout


def test_a_config_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    fails(call("configs.py", "gpt_chr"), 2, '"gpt_char"')
    wrong = call("train.py", "--config=configs/gpt_chr.py", f"--workdir={tmp_path}")
    fails(wrong, 2, "--config=configs/gpt_char.py")
    monkeypatch.chdir(tmp_path)
    elsewhere = call("train.py", "--config=configs/gpt_chr.py", f"--workdir={tmp_path}")
    fails(elsewhere, 2, "--config=configs/gpt_char.py")


def test_help_on_the_config():
    done = call("train.py", "--help=config.task", f"--config={ROOT}/configs/gpt_char.py")
    assert done.returncode == 0 and "--config.task.context=64" in done.stdout
    assert "--help=config" in call("train.py", "--help").stdout
    fails(call("evaluate.py", "--help=config"), 2, "--help lists the flags")
