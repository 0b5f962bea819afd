"""A run stopped in any way ends with the bits of a run never stopped."""

import functools
import random
import signal
import subprocess
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.end_to_end.conftest import call, command
from transformer.training.checkpoints import Checkpoints
from transformer.training.experiment import prepare, read_config
from transformer.training.loop import checkpoint_items
from transformer.training.metrics import MetricsWriter, read_metrics

DURATION = 60
TIMING = {"step_time", "tokens_per_second", "mfu"}


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


@functools.cache
def final_arrays(workdir: Path) -> dict[str, np.ndarray]:
    """Parameters, their average, optimizer state and key of the last checkpoint."""
    shapes = prepare(read_config(workdir), workdir).shapes
    checkpoints = Checkpoints(workdir, read_only=True)
    state = checkpoints.restore(DURATION, checkpoint_items(shapes)).state
    checkpoints.close()
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {
        jax.tree_util.keystr(path): np.asarray(
            jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        )
        for path, x in leaves
    }


def logged(workdir: Path) -> list[dict]:
    return [
        {name: value for name, value in line.items() if name not in TIMING}
        for line in read_metrics(workdir)
    ]


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


def assert_same_run(workdir: Path, reference: Path) -> None:
    assert logged(workdir) == logged(reference)
    ours, theirs = final_arrays(workdir), final_arrays(reference)
    assert ours.keys() == theirs.keys()
    for path, value in ours.items():
        np.testing.assert_array_equal(value, theirs[path], err_msg=path)


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


def interrupt_after(step: int, monkeypatch) -> None:
    """This process gets a SIGINT when it logs this step."""
    write = MetricsWriter.write

    def write_and_interrupt(writer, at, split, values):
        write(writer, at, split, values)
        if at == step and split == "train":
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(MetricsWriter, "write", write_and_interrupt)


def test_asked_to_stop(flags, uninterrupted, tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    assert start_and_stop(flags, workdir, signal.SIGTERM, 12) == 143
    stopped_at = read_metrics(workdir)[-1]["step"]
    assert 12 <= stopped_at < DURATION
    assert (workdir / "checkpoints" / str(stopped_at)).is_dir()

    with monkeypatch.context() as patch:
        interrupt_after(stopped_at + 3, patch)
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
