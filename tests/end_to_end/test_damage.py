"""Damaged checkpoints and full disks: said clearly, nothing lost."""

import os
import shutil

import pytest

from tests.end_to_end.conftest import call, nothing_shown, run

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def flags(tiny_flags):
    return [
        *tiny_flags,
        "--config.train.save_every=4",
        "--config.train.evaluate_every=4",
        "--config.train.keep_last=3",
    ]


@pytest.fixture(scope="module")
def trained(flags, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trained") / "run"
    done = call("train.py", *flags, "--config.train.duration=12", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    return workdir


def data_files(checkpoint):
    """The files that hold arrays, largest first."""
    files = [path for path in checkpoint.rglob("*") if path.is_file() and "/d/" in str(path)]
    assert files
    return sorted(files, key=lambda path: -path.stat().st_size)


def truncate(checkpoint):
    for path in data_files(checkpoint):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garble(checkpoint):
    path = data_files(checkpoint)[0]
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    for place in range(middle, middle + 64):
        content[place] ^= 0x55
    path.write_bytes(content)


def empty(checkpoint):
    for path in checkpoint.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "duration", "said"),
    [
        # The checkpoint before ends these runs: it was found, and nothing has to be compiled.
        (truncate, 8, "8 of 8 steps are done"),
        (empty, 8, "8 of 8 steps are done"),
        (garble, 16, "from step 8"),
    ],
)
def test_damaged_newest_checkpoint(flags, trained, tmp_path, damage, duration, said):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    damage(workdir / "checkpoints" / "12")
    flags = [*flags, f"--config.train.duration={duration}", f"--workdir={workdir}"]
    with nothing_shown():
        done = call("train.py", *flags)
    assert done.returncode == 0, done.stderr
    assert "checkpoint of step 12 cannot be read" in done.stderr
    assert said in done.stderr
    assert (workdir / "unreadable_checkpoints" / "12").is_dir()
    assert (workdir / "checkpoints" / str(duration)).is_dir()


def test_all_checkpoints_damaged(flags, trained, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    steps = sorted(path.name for path in (workdir / "checkpoints").iterdir() if path.is_dir())
    for step in steps:
        truncate(workdir / "checkpoints" / step)
    done = call("train.py", *flags, "--config.train.duration=16", f"--workdir={workdir}")
    assert done.returncode == 2
    assert "can be read" in done.stderr
    assert "Traceback" not in done.stderr
    kept = sorted(path.name for path in (workdir / "checkpoints").iterdir() if path.is_dir())
    assert kept == steps


def test_full_disk_keeps_the_last_good_checkpoint(flags, trained, tmp_path):
    """A limit on the size of files makes every large write fail as a full disk does."""
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    size = data_files(workdir / "checkpoints" / "12")[0].stat().st_size
    # Room for the metrics, not for the arrays.
    size = max(size // 2, (workdir / "metrics.jsonl").stat().st_size + 10_000)

    limited = ["bash", "-c", f'ulimit -f {size // 1024}; exec "$@"', "bash"]
    flags = [*flags, "--config.train.duration=16"]
    # The cache of compiled programs would meet the limit first, and only warn.
    environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    done = run("train.py", *flags, f"--workdir={workdir}", prefix=limited, env=environment)
    assert done.returncode == 1, done.stderr
    assert "checkpoint could not be saved" in done.stderr
    assert "Traceback" not in done.stderr
    with nothing_shown():
        again = call("train.py", *flags, f"--workdir={workdir}")
    assert again.returncode == 0, again.stderr
    assert "from step 12" in again.stderr
