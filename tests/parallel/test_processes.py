"""Several processes train together like one, stop together, and one more or less goes on."""

import json
import os
import signal
import socket
import subprocess
import time

import numpy as np
import pytest

from tests.end_to_end.conftest import command
from tests.simulated import simulated_devices
from transformer.errors import ConfigError
from transformer.locks import locked
from transformer.runtime import join_processes
from transformer.training.holding import LOCK_FILE

# All within the warmup, so that the learning rate does not depend on it.
MOST = "--config.train.duration=95 steps"
FLAGS = (
    "--config.model.num_layers=1",
    "--config.task.tokenizer.kind=byte",
    "--config.task.batch_size=8",
    "--config.task.context=16",
    "--config.task.sample_length=3",
    "--config.train.tensorboard=False",
    "--config.train.log_every=1 steps",
    "--config.train.evaluate_every=1000 steps",
    "--config.train.validation_batches=1",
    "--config.train.save_every=10 steps",
    "--config.train.steps_per_dispatch=1",
    "--config.optimizer.warmup=100 steps",
    "--config.mesh.fsdp=2",
)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start(folder, workdir, count, *flags):
    """As many processes as asked for, of four devices together."""
    environment = simulated_devices(4 // count)
    place = f"--coordinator=127.0.0.1:{free_port()}"
    (folder / "text.txt").write_text("".join(f"{n} is {n}. " for n in range(600)))
    started = []
    for index in range(count):
        who = (place, f"--num_processes={count}", f"--process_id={index}") if count > 1 else ()
        line = command(
            "train.py",
            "--config=configs/gpt_char.py:tiny",
            f"--config.task.path={folder / 'text.txt'}",
            f"--workdir={folder / workdir}",
            *FLAGS,
            *who,
            *flags,
        )
        with (folder / f"{workdir}-{count}-{index}.log").open("w") as log:
            started.append(subprocess.Popen(line, env=environment, stdout=log, stderr=log))
    return started


def ended(processes, timeout=120):
    return [process.wait(timeout) for process in processes]


def losses(workdir):
    path = workdir / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {row["step"]: row["loss"] for row in rows if row["split"] == "train"}


def wait_for(step, workdir, processes):
    deadline = time.monotonic() + 120
    while max(losses(workdir), default=0) < step:
        assert all(process.poll() is None for process in processes), "ended early"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_two_processes_are_one(tmp_path):
    # A signal to one of them stops both, at one step, and saves.
    pair = start(tmp_path, "run", 2, MOST)
    wait_for(2, tmp_path / "run", pair)
    pair[1].send_signal(signal.SIGTERM)
    assert ended(pair) == [143, 143]
    (saved,) = (int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert max(losses(tmp_path / "run")) == saved

    # One that dies without a word takes the other with it, soon and not in silence.
    alone = start(tmp_path, "alone", 1, MOST)
    pair = start(tmp_path, "run", 2, MOST, "--heartbeat_seconds=5")
    wait_for(saved + 1, tmp_path / "run", pair)
    pair[1].kill()
    codes = ended(pair, timeout=60)
    assert codes[1] == -signal.SIGKILL
    assert codes[0] not in (0, 143)
    assert "another task died" in (tmp_path / "run-2-0.log").read_text()

    # What they saved is gone on with by another number of processes, in the same order of data.
    last = int(max((tmp_path / "run" / "checkpoints").iterdir(), key=lambda p: int(p.name)).name)
    less = f"--config.train.duration={last + 4} steps"
    assert ended(start(tmp_path, "run", 1, less)) == [0]
    assert ended(alone) == [0]
    found, expected = losses(tmp_path / "run"), losses(tmp_path / "alone")
    assert list(found) == list(range(1, last + 5))
    expected = [expected[step] for step in found]
    np.testing.assert_allclose(list(found.values()), expected, atol=1e-5)


def test_none_of_them_trains_where_another_run_does(tmp_path):
    """The first of them finds it out, and the other one does not wait for it."""
    (tmp_path / "run").mkdir()
    with locked(tmp_path / "run" / LOCK_FILE):
        assert ended(start(tmp_path, "run", 2, MOST)) == [2, 2]
    for index in range(2):
        said = (tmp_path / f"run-2-{index}.log").read_text()
        assert f"run is in use by process {os.getpid()} on " in said
        assert "Traceback" not in said


def test_half_told_who_it_is():
    with pytest.raises(ConfigError, match="give all of --coordinator"):
        join_processes("127.0.0.1:1", None, 0, 10)


def test_alone_nothing_is_joined(monkeypatch):
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS", raising=False)
    join_processes(None, None, None, 10)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "1")
    join_processes(None, None, None, 10)
