"""Scripts use the checkpoint with the lowest validation loss, and say so where none has one."""

import json
import shutil

import pytest

from tests.end_to_end.conftest import call, nothing_shown
from tests.runs import without_seals
from transformer.training import feeding
from transformer.training.checkpoints import Checkpoints
from transformer.training.metrics import read_metrics


@pytest.fixture(scope="module")
def flags(tiny_flags):
    # The rate rises until the loss does.
    return [
        *tiny_flags,
        "--config.train.evaluate_every=4",
        "--config.train.save_every=4",
        "--config.train.keep_last=1",
        "--config.train.ema_decay=0.5",
        "--config.optimizer.learning_rate=4.0",
        "--config.optimizer.warmup=40 steps",
    ]


@pytest.fixture(scope="module")
def trained(flags, tmp_path_factory):
    """A run in two parts that ends worse than it was."""
    workdir = tmp_path_factory.mktemp("best") / "run"
    for steps in (20, 40):
        duration = f"--config.train.duration={steps}"
        with nothing_shown():
            done = call("train.py", *flags, duration, f"--workdir={workdir}")
        assert done.returncode == 0, done.stderr
    return workdir


def evaluated(workdir, *flags):
    done = call("evaluate.py", f"--workdir={workdir}", "--json", *flags)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def test_the_best_is_the_lowest_that_was_logged(trained):
    """Of the average, which is what is evaluated and what is opened."""
    losses = {
        line["step"]: line["loss"]
        for line in read_metrics(trained)
        if line["split"] == "validation"
    }
    best = min(losses, key=losses.get)
    assert losses[best] < losses[40] - 0.01
    found, said = evaluated(trained)
    assert found["step"] == best
    assert found["loss"] == pytest.approx(losses[best], rel=1e-6)
    assert "none is the best" not in said
    assert evaluated(trained, "--checkpoint=last")[0]["step"] == 40
    steps = {path.name for path in (trained / "checkpoints").iterdir() if path.is_dir()}
    assert steps == {str(best), "40"}


def test_runs_of_before_carry_no_losses(trained, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    without_seals(workdir)
    found, said = evaluated(workdir)
    assert found["step"] == 40
    assert said.count("none is the best: the newest is used, of step 40") == 1


def test_merged_adapters_of_an_average_open(trained, flags, tmp_path):
    adapted = tmp_path / "adapted"
    lora = ["--config.lora.rank=2", f"--config.init.workdir={trained}"]
    with nothing_shown():
        done = call(
            "train.py",
            *[flag for flag in flags if "warmup" not in flag],
            *lora,
            "--config.train.duration=4",
            "--config.optimizer.learning_rate=0.01",
            f"--workdir={adapted}",
        )
    assert done.returncode == 0, done.stderr
    file, merged = tmp_path / "adapter.safetensors", tmp_path / "merged"
    done = call("adapters.py", f"--workdir={adapted}", f"--output={file}")
    assert done.returncode == 0, done.stderr
    done = call("adapters.py", f"--adapter={file}", f"--base={trained}", f"--workdir={merged}")
    assert done.returncode == 0, done.stderr
    ours, theirs = evaluated(merged)[0], evaluated(adapted)[0]
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)


def test_an_error_leaves_nothing_open(flags, tmp_path, monkeypatch):
    """Sweeps go on in the same process after a run that failed."""
    opened, closed = [], []

    def note(method, notes):
        def noted(self, *arguments, **options):
            notes.append(type(self).__name__)
            return method(self, *arguments, **options)

        return noted

    for kind in (Checkpoints, feeding.Feeder):
        monkeypatch.setattr(kind, "__init__", note(kind.__init__, opened))
        monkeypatch.setattr(kind, "close", note(kind.close, closed))
    rate = [flag for flag in flags if "warmup" not in flag]
    done = call(
        "train.py",
        *rate,
        "--config.train.duration=40",
        "--config.optimizer.learning_rate=1e30",
        f"--workdir={tmp_path / 'run'}",
    )
    assert done.returncode == 3, done.stderr
    assert sorted(opened) == sorted(closed) == ["Checkpoints", "Feeder"]
