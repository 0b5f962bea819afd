import contextlib
import io
import os
import random
import runpy
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from unittest import mock

import pytest

import transformer.runs.opening

# The script finds these imported, and with them the flags of what they import.
import transformer.training.loop
import transformer.training.validation  # noqa: F401
from tests.conftest import COMPILED
from transformer import command_line, signals
from transformer.training.metrics import MetricsWriter
from transformer.training.shared import Shared

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "gpt_char.py"


# Warnings are errors here too, but for the way ml_collections imports config files, and for types
# of jaxlib 0.12 that Python finds incomplete.
WARNINGS = [
    "-Werror",
    "-Wignore:the load_module() method is deprecated:DeprecationWarning",
    "-Wignore:builtin type:DeprecationWarning",
]


# For processes whose programs are compiled as those of users, and not as `tests` has it.
OPTIMIZED = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "false", "XLA_FLAGS": ""}


def command(script: str, *flags: str) -> list[str]:
    return [sys.executable, *WARNINGS, str(ROOT / "scripts" / script), *flags]


def run(script: str, *flags: str, prefix=(), **options) -> subprocess.CompletedProcess:
    """A script as a user starts it, its output as text."""
    settings = {"capture_output": True, "text": True, "timeout": 300, **options}
    return subprocess.run([*prefix, *command(script, *flags)], check=False, **settings)


# The compiled programs of all calls of a test file.
PROGRAMS = Shared()
get_or_make = Shared.get_or_make


def kept_programs(shared: Shared, key, make):
    """Programs are those of the calls before, as in a sweep; data are read by each call."""
    return get_or_make(PROGRAMS if key[0] == "programs" else shared, key, make)


def call(script: str, *flags: str, input: str | bytes = "") -> subprocess.CompletedProcess:
    """The same in this process: what `run` gives, without seconds of imports and compilation.

    For whatever does not depend on being a process; each script and each exit code is seen in one
    by another test. Runs of one config are compiled once, as trials of a sweep are; a process of
    its own compiles anew. An exception that nobody turns into a message is not caught here.
    """
    path = str(ROOT / "scripts" / script)
    given = input.encode() if isinstance(input, str) else input
    streams = {name: io.TextIOWrapper(io.BytesIO(), "utf-8") for name in ("stdout", "stderr")}
    streams["stdin"] = io.TextIOWrapper(io.BytesIO(given), "utf-8")
    known, hook = set(command_line.FLAGS), sys.unraisablehook
    handlers = {number: signal.getsignal(number) for number in signals.ENDING}
    with contextlib.ExitStack() as stack:
        # The compilation cache is that of the tests.
        stack.enter_context(mock.patch("transformer.runtime.prepare_process"))
        stack.enter_context(mock.patch.object(Shared, "get_or_make", kept_programs))
        stack.enter_context(mock.patch.multiple(sys, argv=[path, *flags], **streams))
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", "the load_module", DeprecationWarning)
        try:
            with pytest.raises(SystemExit) as end:
                runpy.run_path(path, run_name="__main__")
        finally:
            sys.unraisablehook = hook
            for number, handler in handlers.items():
                signal.signal(number, handler)
            for name in set(command_line.FLAGS) - known:
                delattr(command_line.FLAGS, name)
            command_line.FLAGS.unparse_flags()
    written = [streams[name].buffer.getvalue().decode() for name in ("stdout", "stderr")]
    return subprocess.CompletedProcess([path, *flags], int(end.value.code or 0), *written)


def nothing_shown():
    """In here runs of this process write no samples, scores and pictures after the last step."""
    return mock.patch("transformer.training.loop.finish")


@contextlib.contextmanager
def interrupted_after(step: int):
    """In here a run of this process gets a SIGINT when it logs this step."""
    write = MetricsWriter.write

    def write_and_interrupt(writer, at, split, scalars):
        write(writer, at, split, scalars)
        if at == step and split == "train":
            signal.raise_signal(signal.SIGINT)

    with mock.patch.object(MetricsWriter, "write", write_and_interrupt):
        yield


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
    """Token files and compiled programs of all tests, shared between their processes."""
    with mock.patch.dict(os.environ, XDG_CACHE_HOME=str(COMPILED.parents[1])):
        yield


@pytest.fixture(scope="module", autouse=True)
def own_programs():
    """No file keeps the programs of another one in memory."""
    yield
    PROGRAMS.__init__()


@pytest.fixture(scope="module")
def undrawn():
    """The loss curves of each run are a file that takes no time to draw."""

    def draw(lines, path) -> bool:
        path.write_bytes(b"curves")
        return True

    with mock.patch("transformer.training.finishing.draw_curves", draw):
        yield


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
        # Runs of any duration are the same program, compiled once.
        "--config.optimizer.schedule=constant",
    ]
