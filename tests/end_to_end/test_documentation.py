"""The commands of README.md and the Python of all pages run, on a tiny model."""

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
    elsewhere = call("train.py", "--config=configs/gpt_char.py", f"--workdir={tmp_path}")
    fails(elsewhere, 2, "folder of the project")


def test_help_on_the_config():
    done = call("train.py", "--help=config.task", f"--config={ROOT}/configs/gpt_char.py")
    assert done.returncode == 0 and "--config.task.context=64" in done.stdout
    assert "--help=config" in call("train.py", "--help").stdout
    fails(call("evaluate.py", "--help=config"), 2, "--help lists the flags")
