import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from transformer.data.tokens import cache_folder

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "gpt_char.py"


# Warnings are errors here too, but for the way ml_collections imports config files.
WARNINGS = ["-Werror", "-Wignore:the load_module() method is deprecated:DeprecationWarning"]


def command(script: str, *flags: str) -> list[str]:
    return [sys.executable, *WARNINGS, str(ROOT / "scripts" / script), *flags]


def run(script: str, *flags: str, prefix=(), **options) -> subprocess.CompletedProcess:
    """A script as a user starts it, its output as text."""
    settings = {"capture_output": True, "text": True, "timeout": 300, **options}
    return subprocess.run([*prefix, *command(script, *flags)], check=False, **settings)


def fails(done: subprocess.CompletedProcess, code: int, *said: str) -> None:
    """One clear message with these words, this exit code, no traceback."""
    message = done.stderr if isinstance(done.stderr, str) else done.stderr.decode()
    assert done.returncode == code, message
    assert "Traceback" not in message
    assert "error:" in message
    for text in said:
        assert text in message


@pytest.fixture(scope="session", autouse=True)
def own_cache():
    """Token files and compiled programs of these tests, shared between their processes."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(cache_folder() / "end_to_end")
    yield
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture(scope="session")
def text_file(tmp_path_factory) -> Path:
    """Random sentences over a few words."""
    words = ["the", "transformer", "reads", "what", "it", "wrote", "and", "writes", "again"]
    source = random.Random(0)
    lines = (" ".join(source.choices(words, k=8)) + "." for _ in range(400))
    path = tmp_path_factory.mktemp("text") / "words.txt"
    path.write_text("\n".join(lines), "utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_flags(text_file) -> list[str]:
    """The flags of a run that takes seconds."""
    return [
        f"--config={CONFIG}",
        f"--config.task.path={text_file}",
        "--config.model.num_layers=1",
        "--config.model.num_heads=2",
        "--config.model.width=32",
        "--config.model.context=16",
        "--config.task.batch_size=4",
        "--config.task.sample_length=20",
        "--config.train.steps_per_dispatch=4",
        "--config.train.log_every=1",
        "--config.train.tensorboard=False",
    ]
