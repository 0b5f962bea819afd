"""One run writes into a run folder at a time."""

import errno
import json
import os
import time

import pytest

from tests.sweeps.conftest import tiny_config
from transformer import locks
from transformer.errors import WorkdirError
from transformer.locks import locked
from transformer.runs.folders import require_new, write_run
from transformer.sweeps import runner
from transformer.sweeps.folder import Folder
from transformer.sweeps.trials import make_trial
from transformer.training.holding import LOCK_FILE, HeldError, holding, is_empty
from transformer.training.loop import train
from transformer.training.saved_runs import adopt_workdir
from transformer.training.shared import Shared


@pytest.fixture
def config(tmp_path):
    # A file that is not there: whoever gets as far as the data has not been refused.
    return tiny_config(tmp_path / "text.txt")


def test_a_second_run_is_refused_before_it_writes(config, tmp_path):
    run = tmp_path / "run"
    said = rf"run is in use by process {os.getpid()} on .*, since .*give another --workdir"
    with holding(run):
        with pytest.raises(HeldError, match=said):
            train(config, run)
        with pytest.raises(HeldError, match=said):
            write_run(
                run, config, {}, tokenizer=None, labels=(), fingerprint="", files={"note": "mine"}
            )
        assert [path.name for path in run.iterdir()] == [LOCK_FILE]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_made_for_nothing_goes(config, tmp_path):
    with pytest.raises(Exception, match=r"text\.txt does not exist"):
        train(config, tmp_path / "deep" / "run")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with holding(tmp_path / "mine"):
        pass
    assert list((tmp_path / "mine").iterdir()) == []


def test_what_a_killed_run_left_of_its_start_is_nothing(config, tmp_path):
    """It was killed before it had a config."""
    (tmp_path / LOCK_FILE).write_text("host 1 since then\n")
    (tmp_path / ".config.json.abc.part").write_text("{")
    (tmp_path / ".shown.part").mkdir()
    (tmp_path / ".shown.part" / "sample.txt").write_text("To")
    assert is_empty(tmp_path)
    require_new(tmp_path)
    adopt_workdir(config, tmp_path)
    with holding(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [LOCK_FILE]
    assert list(tmp_path.iterdir()) == []


def test_folders_of_something_else_are_left_as_they_are(config, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(WorkdirError, match="is not the folder of a run"):
        train(config, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_without_locks_it_is_said(tmp_path, monkeypatch, capsys):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", none)
    with holding(tmp_path / "run"):
        # Whoever makes a whole folder, as an import does, puts it in the place of an empty one.
        assert not list((tmp_path / "run").iterdir())
    assert "warning: No locks available" in capsys.readouterr().err


def test_a_holder_on_another_host_may_be_dead(tmp_path, monkeypatch, capsys):
    """The server of its files does not know yet; on this host the kernel knows at once."""
    monkeypatch.setattr("transformer.training.holding._PAUSE", 0.01)
    monkeypatch.setattr("transformer.training.holding._LEASE", 0.1)
    path = tmp_path / LOCK_FILE
    with locked(path):
        path.write_text("elsewhere 7 since 2026-01-01 00:00:00+00:00\n")
        with (
            pytest.raises(HeldError, match="process 7 on elsewhere, since 2026"),
            holding(tmp_path),
        ):
            pass
    assert capsys.readouterr().err.count("Waiting") == 1
    monkeypatch.setattr("transformer.training.holding._LEASE", 60.0)
    other = locked(path)
    other.__enter__()
    path.write_text("elsewhere 7 since 2026-01-01 00:00:00+00:00\n")
    monkeypatch.setattr(time, "sleep", lambda seconds: other.__exit__(None, None, None))
    with holding(tmp_path):
        assert str(os.getpid()) in path.read_text()


def test_a_lock_that_leads_elsewhere(tmp_path):
    (tmp_path / "mine").write_text("mine")
    run = tmp_path / "run"
    run.mkdir()
    (run / LOCK_FILE).symlink_to(tmp_path / "mine")
    with pytest.raises(WorkdirError, match=r"run/\.lock cannot be written"), holding(run):
        pass
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_trial_that_somebody_trains_alone_is_waited_for(config, tmp_path, monkeypatch):
    folder, trial, said = Folder(tmp_path / "sweep"), make_trial(config, {"train.seed": 1}), []
    run = folder.run(trial.id)
    run.mkdir(parents=True)
    other, looks = locked(run / LOCK_FILE), []
    other.__enter__()

    def ends(seconds):
        looks.append(seconds)
        if len(looks) == 3:
            other.__exit__(None, None, None)
            status = json.loads((run / "status.json").read_text())
            (run / "status.json").write_text(json.dumps(status | {"status": "done"}))

    monkeypatch.setattr(runner.time, "sleep", ends)
    assert runner.run_grid([trial], folder, Shared(), said.append, lambda _: "train") == 0
    assert len(looks) == 3
    assert sum("is in use by process" in line for line in said) == 1
    assert len(said) == 3
