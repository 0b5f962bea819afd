"""A run stopped in any way ends with the bits of a run never stopped."""

import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.end_to_end.conftest import call, command, fails, interrupted_after
from tests.runs import assert_same_run
from transformer.locks import locked
from transformer.training.holding import LOCK_FILE
from transformer.training.metrics import read_metrics

DURATION = 60

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def flags(tiny_flags):
    return [
        *tiny_flags,
        "--config.model.dropout_rate=0.1",
        "--config.train.ema_decay=0.9",
        "--config.optimizer.schedule=cosine",
        "--config.optimizer.warmup=10 steps",
        f"--config.train.duration={DURATION}",
        "--config.train.save_every=10",
        "--config.train.evaluate_every=20",
    ]


@pytest.fixture(scope="module")
def uninterrupted(flags, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("uninterrupted") / "run"
    done = call("train.py", *flags, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    return workdir


def start_and_stop(flags, workdir, number: int, after_step: int) -> int:
    """Starts the run, sends it a signal once it has logged a step, returns its exit code."""
    process = subprocess.Popen(
        command("train.py", *flags, f"--workdir={workdir}"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        lines = read_metrics(workdir)
        if lines and lines[-1]["step"] >= after_step:
            process.send_signal(number)
            break
        time.sleep(0.002)
    return process.wait(timeout=120)


def test_killed_several_times(flags, uninterrupted, tmp_path):
    """Processes of their own are killed; that the run is also ended by another proves the more."""
    workdir = tmp_path / "run"
    source = random.Random(0)
    for earliest in (1, 25):
        code = start_and_stop(flags, workdir, signal.SIGKILL, earliest + source.randrange(10))
        assert code == -signal.SIGKILL
    done = call("train.py", *flags, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    assert "Resuming" in done.stderr
    assert_same_run(workdir, uninterrupted)


def test_asked_to_stop(flags, uninterrupted, tmp_path):
    workdir = tmp_path / "run"
    assert start_and_stop(flags, workdir, signal.SIGTERM, 12) == 143
    stopped_at = read_metrics(workdir)[-1]["step"]
    assert 12 <= stopped_at < DURATION
    assert (workdir / "checkpoints" / str(stopped_at)).is_dir()

    with interrupted_after(stopped_at + 3):
        done = call("train.py", *flags, f"--workdir={workdir}")
    assert done.returncode == 130
    assert f"from step {stopped_at}" in done.stderr
    last = read_metrics(workdir)[-1]["step"]
    assert stopped_at + 3 <= last < DURATION
    assert (workdir / "checkpoints" / str(last)).is_dir()

    done = call("train.py", *flags, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    assert f"from step {last}" in done.stderr
    assert_same_run(workdir, uninterrupted)


def test_interrupted_while_it_starts(flags, tmp_path):
    """In the middle of imports, data and compilation."""
    workdir = tmp_path / "run"
    line = command("train.py", *flags, f"--workdir={workdir}")
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not (workdir / LOCK_FILE).exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    # Nobody else may train there now.
    fails(call("train.py", *flags, f"--workdir={workdir}"), 2, f"in use by process {process.pid} ")
    process.send_signal(signal.SIGINT)
    said = b"".join(process.communicate(timeout=120))
    assert process.returncode == 130
    assert b"Traceback" not in said
    with locked(workdir / LOCK_FILE):
        pass


ASKED_TO_STOP_AT_ITS_END = """
import os, runpy, signal, sys, time
from transformer.tasks.language_modeling import LanguageModeling

def show(*_):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)

LanguageModeling.show = show
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_asked_to_stop_at_its_end(flags, uninterrupted, tmp_path):
    workdir = shutil.copytree(uninterrupted, tmp_path / "run")
    for name in ("sample.txt", "finished.json"):
        (workdir / name).unlink()
    python, *options, script = command("train.py")
    line = [python, *options, "-c", ASKED_TO_STOP_AT_ITS_END, script]
    ended = subprocess.run(
        [*line, *flags, f"--workdir={workdir}"], capture_output=True, check=False, timeout=300
    )
    assert ended.returncode == 143
    assert b"Traceback" not in ended.stderr
    done = call("train.py", *flags, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    assert "60 of 60 steps are done; the end of" in done.stderr
    assert "Finished 60 steps" in done.stderr
    assert_same_run(workdir, uninterrupted)
    for name in ("sample.txt", "finished.json"):
        assert (workdir / name).read_bytes() == (uninterrupted / name).read_bytes()
    assert sorted(workdir.iterdir()) == sorted(workdir / p.name for p in uninterrupted.iterdir())


def test_finished_run_says_so(flags, uninterrupted):
    before = (uninterrupted / "metrics.jsonl").read_text()
    done = call("train.py", *flags, f"--workdir={uninterrupted}")
    assert done.returncode == 0
    assert "is finished" in done.stderr
    assert (uninterrupted / "metrics.jsonl").read_text() == before


def test_other_steps_per_dispatch_gives_the_same_bits(flags, uninterrupted, tmp_path):
    workdir = tmp_path / "run"
    done = call("train.py", *flags, "--config.train.steps_per_dispatch=7", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    assert_same_run(workdir, uninterrupted)
