"""Every numeric flag of every script: a clear refusal with exit code 2, or it works."""

import re

import jax
import pytest

from tests.end_to_end.conftest import ROOT, call, fails
from transformer.runs import opening as runs

KINDS = re.compile(r'DEFINE_(integer|float)\(\s*"(\w+)"')
FLAGS = sorted(
    (path.name, name, kind)
    for path in (ROOT / "scripts").glob("*.py")
    for kind, name in KINDS.findall(path.read_text("utf-8"))
)
WRONG = {
    "float": ("nan", "inf", "-inf", "1e400", "-1e400", "much"),
    "integer": ("nan", "1.5", str(10**30), str(-(10**30)), "many", "0x1p3"),
}


def test_there_are_many():
    assert len(FLAGS) > 25


@pytest.mark.parametrize(("script", "name", "kind"), FLAGS)
def test_what_is_no_number_of_use_is_refused(script, name, kind):
    for value in WRONG[kind]:
        fails(call(script, f"--{name}={value}"), 2, f"--{name}")


@pytest.mark.parametrize("seed", [-1, 2**32, 2**64, 10**30])
def test_seeds_of_which_nothing_would_be_left(tiny_flags, tmp_path, seed):
    """JAX makes the same key of 2**32 and of 0."""
    done = call("train.py", *tiny_flags, f"--config.train.seed={seed}", f"--workdir={tmp_path}/r")
    fails(done, 2, f"config.train.seed is {seed}", "4294967295")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nmore"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_memory_that_does_not_suffice(monkeypatch, error):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(runs, "open_run", fail)
    done = call("generate.py", "--workdir=run", "--num_samples=60000")
    fails(done, 2, "the memory does not suffice", "Ask for less")
    assert done.stderr.count("\n") == 1


def test_the_process_of_several(tiny_flags, tmp_path):
    flags = ["--coordinator=localhost:1", "--num_processes=2", "--process_id=2"]
    fails(call("train.py", *tiny_flags, *flags), 2, "--process_id is 2: from 0 to 1")
