"""The command `transformer`, from a wheel and in shells, and what beginners forget."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
import zipfile
from importlib.metadata import EntryPoint

import pytest

from tests.end_to_end.conftest import CONFIG, ROOT, WARNINGS, call, fails
from transformer import __main__ as front
from transformer import __version__, installed
from transformer.commands import commands, shipped_configs, variants
from transformer.completion import SHELLS
from transformer.config_files import with_shipped


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """What `pip wheel .` makes, without a network, from a copy: it builds beside the sources."""
    pytest.importorskip("setuptools", reason="pip install setuptools")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignored = shutil.ignore_patterns("__pycache__")
    for part in ("transformer", "scripts", "configs"):
        shutil.copytree(ROOT / part, source / part, ignore=ignored)
    for part in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / part, source)
    options = ["--quiet", "--no-build-isolation", "--no-deps", "--no-index", f"-w{folder}"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def unpacked(wheel, tmp_path_factory):
    """The wheel as an installation has it, and an empty folder to stand in."""
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder, tmp_path_factory.mktemp("elsewhere")


def test_the_wheel_holds_everything(wheel):
    assert wheel.name.startswith(f"transformer_family-{__version__}-py3")
    held = set(zipfile.ZipFile(wheel).namelist())
    package = [path for path in (ROOT / "transformer").rglob("*.*") if path.suffix != ".pyc"]
    files = [path.relative_to(ROOT).as_posix() for path in package]
    for part in ("scripts", "configs"):
        files += [f"transformer/{part}/{path.name}" for path in (ROOT / part).glob("*.py")]
    assert not set(files) - held
    assert {name.split("/")[0].partition("-")[0] for name in held} == {
        "transformer",
        "transformer_family",
    }


def test_every_entry_point_is_there(wheel):
    archive = zipfile.ZipFile(wheel)
    (name,) = (each for each in archive.namelist() if each.endswith("entry_points.txt"))
    lines = [line for line in archive.read(name).decode().splitlines() if "=" in line]
    points = [EntryPoint(*line.split(" = "), "console_scripts") for line in lines]
    assert [point.name for point in points] == ["transformer"]
    assert points[0].load() is front.main


def of_wheel(unpacked, *arguments):
    """The command of an unpacked wheel, started in another folder."""
    site, elsewhere = unpacked
    return subprocess.run(
        [sys.executable, *WARNINGS, "-m", "transformer", *arguments],
        cwd=elsewhere,
        env=os.environ | {"PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_wheel_names_its_own_commands(unpacked):
    done = of_wheel(unpacked, "configs", "gpt_char")
    assert done.returncode == 0, done.stderr
    assert "transformer train --config=configs/gpt_char.py" in done.stdout
    assert "pip install 'transformer-family[data,tensorboard]'" in done.stdout
    assert "python scripts" not in done.stdout


def test_a_wheel_brings_the_configs(unpacked):
    done = of_wheel(unpacked, "train", "--config=configs/gpt_char.py:tiny")
    path = unpacked[0] / "transformer" / "configs" / "gpt_char.py"
    assert f"is not in this folder: this is the config of the package, {path}" in done.stderr
    fails(done, 2, f"transformer train --workdir=runs/gpt_char --config={path}:tiny")


def test_commands_are_read_from_scripts():
    found = commands()
    assert [each.name for each in found] == sorted(
        path.stem for path in (ROOT / "scripts").glob("*.py")
    )
    for each in found:
        code = (ROOT / "scripts" / f"{each.name}.py").read_text("utf-8")
        assert [flag.name for flag in each.flags] == re.findall(r'DEFINE_\w+\(\s*"(\w+)"', code)
        assert each.title.endswith(".") and all(flag.meaning for flag in each.flags)
    formats = {flag.name: flag.choices for each in found for flag in each.flags}["format"]
    assert formats == ("txt", "json", "srt", "vtt", "tsv")
    assert variants(shipped_configs()["gpt_char"]) == ["tiny", "small"]


def answered(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["transformer", *arguments])
    front.main()
    return capsys.readouterr().out


def test_the_command_without_a_script(monkeypatch, capsys):
    usage = answered(monkeypatch, capsys)
    assert all(f"  {each.name} " in usage for each in commands())
    assert answered(monkeypatch, capsys, "--help") == usage
    versions = answered(monkeypatch, capsys, "--version")
    assert f"transformer-family {__version__}, jax " in versions
    for arguments, said in (
        (["trian"], '"train"'),
        (["completion"], "bash or zsh"),
        (["../x"], ""),
    ):
        with pytest.raises(SystemExit) as end:
            answered(monkeypatch, capsys, *arguments)
        assert end.value.code == 2 and said in capsys.readouterr().err


def test_commands_are_named_as_they_are_typed(monkeypatch):
    text = "pip install -e '.[data]', then python scripts/train.py; see scripts/explain.py"
    assert installed.as_typed(text) == text
    monkeypatch.setattr(sys, "orig_argv", ["python", "/bin/transformer", "train"])
    assert installed.as_typed(text) == (
        "pip install -e '.[data]', then transformer train; see transformer explain"
    )
    monkeypatch.setattr(installed, "IN_CHECKOUT", False)
    assert installed.as_typed(text).startswith("pip install 'transformer-family[data]', then")


def test_configs_of_the_package_and_of_the_reader(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = []
    for given in ("configs/gpt_char.py", "gpt_char.py", "gpt_char"):
        words = ["train.py", f"--config={given}:tiny", "-config", given, "--config.model.width=8"]
        shipped = [f"--config={CONFIG}:tiny", "-config", str(CONFIG), words[-1]]
        assert with_shipped(words, said.append)[1:] == shipped
    assert len(said) == 6 and "configs/gpt_char.py is not in this folder" in said[0]
    for other in ("gpt_chr", "mine/gpt_char.py", "gpt_char.txt", "/gpt_char.py", ""):
        assert with_shipped([f"--config={other}"], said.append) == [f"--config={other}"]
    (tmp_path / "gpt_char.py").write_text("")
    assert with_shipped(["--config=gpt_char.py"], said.append) == ["--config=gpt_char.py"]
    assert len(said) == 6


def test_what_is_forgotten_is_shown_as_a_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    begin = "For example: python scripts/train.py"
    given = f"--config={CONFIG}:tiny"
    fails(call("train.py", given), 2, f"{begin} --workdir=runs/gpt_char {given}\n")
    example = f"{begin} --config=configs/gpt_char.py --workdir=runs/gpt_char\n"
    fails(call("train.py"), 2, example)
    fails(call("generate.py", "--prompt=a b"), 2, "--workdir=runs/gpt_char '--prompt=a b'\n")


def test_a_folder_that_is_no_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lost = call("generate.py", "--workdir=runs/first")
    fails(lost, 2, "python scripts/train.py --config=configs/gpt_char.py --workdir=runs/first\n")
    for name in ("gpt", "first_try"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.json").write_text("{}")
    fails(call("generate.py", "--workdir=runs/first"), 2, "Runs beside it: first_try, gpt.\n")


TYPED = [
    ("trai", "train "),
    ("train --work", "train --workdir="),
    ("train --config=configs/gpt_c", "train --config=configs/gpt_char.py "),
    ("train --config=gpt_char --dry", "train --config=gpt_char --dry_run "),
    ("transcribe --format=v", "transcribe --format=vtt "),
    ("completion z", "completion zsh "),
]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(("given", "completed"), TYPED)
def test_a_shell_completes(shell, given, completed, completing):
    assert f"transformer {completed}" in completing(shell, f"transformer {given}", completed)


def test_variants_complete(completing):
    line = "transformer train --config=configs/gpt_char.py:t"
    assert "gpt_char.py:tiny " in completing("bash", line, "iny ")


@pytest.fixture(scope="module")
def completing(tmp_path_factory):
    """What a shell in a terminal makes of a line and the tabulator."""
    folder = tmp_path_factory.mktemp("shell")
    begin = {
        "bash": ["--norc", "--noprofile", "-i"],
        "zsh": ["-f", "-i"],
    }
    prepare = {
        "bash": "bind 'set enable-bracketed-paste off'",
        "zsh": "autoload -Uz compinit && compinit -u -D; unsetopt zle_bracketed_paste",
    }
    opened = {}

    def open_shell(shell):
        if shutil.which(shell) is None:
            pytest.skip(f"{shell} is not installed")
        (folder / shell).write_text(SHELLS[shell](commands()), "utf-8")
        ours, theirs = pty.openpty()
        environment = os.environ | {"TERM": "dumb", "PS1": "$ ", "COLUMNS": "300"}
        process = subprocess.Popen(
            [shell, *begin[shell]],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
        os.close(theirs)
        os.write(ours, f"{prepare[shell]}; source ./{shell}; echo rea''dy\n".encode())
        until(ours, "ready")
        return ours, process

    def until(terminal, end):
        said, latest = "", time.monotonic() + 60
        while end not in said and time.monotonic() < latest:
            if select.select([terminal], [], [], 0.1)[0]:
                said += os.read(terminal, 1 << 16).decode()
        return said

    def complete(shell, line, end):
        if shell not in opened:
            opened[shell] = open_shell(shell)
        terminal = opened[shell][0]
        os.write(terminal, f"{line}\t".encode())
        said = until(terminal, end)
        # Away with the line.
        os.write(terminal, b"\x15")
        return said

    yield complete
    for terminal, process in opened.values():
        os.close(terminal)
        process.kill()
        process.wait()
