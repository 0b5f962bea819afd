"""The end of a run: done when its result is there, done again when it is not."""

import contextlib
import json
import shutil
import signal
from unittest import mock

import jax
import numpy as np
import pytest

from tests.runs import assert_same_run
from tests.sweeps.conftest import TEXT, tiny_config
from transformer.tasks.language_modeling import LanguageModeling
from transformer.tasks.parts.protocol import Shown
from transformer.training import finishing, loop
from transformer.training.checkpoints import Checkpoints
from transformer.training.finishing import FINISHED_FILE, is_finished
from transformer.training.loop import train
from transformer.training.metrics import MetricsWriter, read_metrics
from transformer.training.shared import Shared


class Killed(BaseException):
    """In place of SIGKILL: nobody expects it."""


@contextlib.contextmanager
def killed_at(owner, name):
    with mock.patch.object(owner, name, side_effect=Killed), pytest.raises(Killed):
        yield


def shown(task, model, params, data, workdir):
    """Says exactly which parameters it was given."""
    digest = sum(float(np.float64(x).sum()) for x in jax.tree.leaves(params))
    (workdir / "sample.txt").write_text(f"{digest!r}\n")
    (workdir / "picture.png").write_bytes(b"picture")
    return Shown("a sample", {"digest": digest})


def drawn(workdir):
    (workdir / "curves.png").write_bytes(b"curves")
    return workdir / "curves.png"


@pytest.fixture(scope="module", autouse=True)
def patched(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(LanguageModeling, "show", shown)
        # Nobody looks at them, and each takes half a second.
        patch.setattr(finishing, "write_curves", drawn)
        patch.setattr(loop, "write_curves", drawn)
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT)
    config = tiny_config(path)
    config.train.ema_decay = 0.5
    config.train.validation_batches = 1
    return config


@pytest.fixture(scope="module")
def shared():
    return Shared()


@pytest.fixture(scope="module")
def whole(config, shared, tmp_path_factory):
    """A run that was never stopped."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert train(config, folder, shared=shared)[0] == 0
    return folder


@pytest.fixture
def finished(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def assert_same_end(ours, theirs):
    assert_same_run(ours, theirs)
    assert files(ours) == files(theirs)
    for name in (FINISHED_FILE, "sample.txt", "config.json"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()


def test_the_mark_says_what_it_is_of(whole):
    assert json.loads((whole / FINISHED_FILE).read_text()) == {
        "step": 6,
        "total_steps": 6,
        "files": ["picture.png", "sample.txt", "curves.png"],
        "scores": ["digest"],
    }
    assert not [path.name for path in whole.iterdir() if path.name.startswith(".")]


def test_killed_anywhere_at_its_end_it_ends_the_same(config, shared, whole, tmp_path, capsys):
    run = tmp_path / "run"
    places = [
        (Checkpoints, "wait"),
        (finishing, "filling"),
        (finishing, "write_again"),
        (finishing, "write_json"),
    ]
    for owner, name in places:
        with killed_at(owner, name):
            train(config, run, shared=shared)
        assert not is_finished(run, 6)
    assert train(config, run, shared=shared)[0] == 0
    assert_same_end(run, whole)
    assert "is finished" not in capsys.readouterr().err
    assert train(config, run, shared=shared)[0] == 0
    assert "is finished: 6 of 6" in capsys.readouterr().err


def test_killed_between_the_last_measurement_and_the_save(config, shared, whole, tmp_path):
    run = tmp_path / "run"
    save = Checkpoints.save

    def killed(self, step, *arguments, **options):
        if step == 6:
            raise Killed
        save(self, step, *arguments, **options)

    with mock.patch.object(Checkpoints, "save", killed), pytest.raises(Killed):
        train(config, run, shared=shared)
    assert read_metrics(run)[-1]["split"] == "validation"
    assert train(config, run, shared=shared)[0] == 0
    assert_same_end(run, whole)


@pytest.mark.parametrize("lost", ["sample.txt", "curves.png", FINISHED_FILE, "metrics.jsonl"])
def test_what_is_missing_is_made_again(config, shared, whole, finished, lost):
    (finished / lost).unlink()
    assert train(config, finished, shared=shared)[0] == 0
    assert files(finished) == files(whole)
    assert (finished / "sample.txt").read_bytes() == (whole / "sample.txt").read_bytes()
    ours, theirs = ([x for x in read_metrics(f) if x["step"] == 6] for f in (finished, whole))
    if lost == "metrics.jsonl":
        theirs = [line for line in theirs if line["split"] not in ("train", "time")]
    assert ours == theirs


def test_a_mark_that_is_none(finished):
    assert is_finished(finished, 6)
    for content in (b"", b"{", b"[]", b"\xff", b'{"step": 6}', b'{"step": 6, "files": [1]}'):
        (finished / FINISHED_FILE).write_bytes(content)
        assert not is_finished(finished, 6)


def test_a_longer_run_ends_again(config, shared, finished):
    config = config.copy_and_resolve_references()
    config.train.duration = "8 steps"
    before = (finished / "sample.txt").read_bytes()
    assert train(config, finished, shared=shared)[1]["step"] == 8
    assert json.loads((finished / FINISHED_FILE).read_text())["step"] == 8
    assert (finished / "sample.txt").read_bytes() != before
    final = [line["step"] for line in read_metrics(finished) if line["split"] == "final"]
    assert final == [6, 8]


def test_a_shorter_run_ends_where_it_is(config, shared, tmp_path):
    """What had been measured there was of some batches only."""
    config = config.copy_and_resolve_references()
    config.train.duration = "12 steps"
    run = tmp_path / "run"
    write = MetricsWriter.write

    def write_and_interrupt(self, step, split, scalars):
        write(self, step, split, scalars)
        if (step, split) == (4, "train"):
            signal.raise_signal(signal.SIGTERM)

    with mock.patch.object(MetricsWriter, "write", write_and_interrupt):
        code, result = train(config, run, shared=shared)
    assert code == 143
    assert not (run / FINISHED_FILE).exists()
    config.train.duration = f"{result['step']} steps"
    assert train(config, run, shared=shared)[0] == 0
    assert is_finished(run, result["step"])
    (last,) = [x for x in read_metrics(run) if x["split"] == "validation" and "sampled_loss" in x]
    assert last["step"] == result["step"]


def test_asked_to_stop_in_the_last_step_it_does_not_go_on_to_the_end(config, shared, tmp_path):
    run = tmp_path / "run"
    save = Checkpoints.save

    def interrupt(self, step, *arguments, **options):
        if step == 6:
            signal.raise_signal(signal.SIGINT)
        save(self, step, *arguments, **options)

    with mock.patch.object(Checkpoints, "save", interrupt):
        assert train(config, run, shared=shared)[0] == 130
    assert not (run / FINISHED_FILE).exists()
    assert train(config, run, shared=shared)[0] == 0
    assert is_finished(run, 6)


def test_what_was_stopped_early_has_no_end(config, shared, tmp_path):
    run = tmp_path / "run"
    code, result = train(config, run, shared=shared, should_stop=lambda step, loss: True)
    assert (code, result["step"]) == (0, 3)
    assert not (run / FINISHED_FILE).exists()
