import pytest

from transformer import locks
from transformer.errors import WorkdirError
from transformer.sweeps.folder import Folder
from transformer.sweeps.trials import make_trial
from transformer.training.saved_runs import read_config


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def test_a_trial_is_of_one_worker_at_a_time(folder):
    with folder.claim("a") as mine, folder.claim("b") as other:
        assert mine
        assert other
        with folder.claim("a") as again:
            assert not again
        assert not folder.is_free("a")
    assert folder.is_free("a")


def test_a_claim_ends_with_whatever_ends_the_work(folder):
    with pytest.raises(KeyError), folder.claim("a"):
        raise KeyError
    assert folder.is_free("a")


def test_systems_without_locks(folder, monkeypatch):
    monkeypatch.setattr(locks, "fcntl", None)
    with pytest.raises(WorkdirError, match="this system has no flock"), folder.claim("a"):
        pass


def test_notes(folder, config):
    trial = make_trial(config, {"train.seed": 3})
    assert folder.status(trial.id) is None
    assert not folder.is_over(trial.id)
    workdir = folder.begin(trial, "train")
    assert read_config(workdir).to_dict() == trial.config.to_dict()
    assert folder.statuses() == [
        {
            "id": trial.id,
            "overrides": {"train.seed": 3},
            "status": "cut off",
            "command": "train",
        }
    ]
    with folder.claim(trial.id):
        assert folder.statuses()[0]["status"] == "running"
    folder.note(trial, "failed", error="no")
    assert folder.is_over(trial.id)
    folder.note(trial, "done", error=None, step=4)
    status = folder.status(trial.id)
    assert (status["status"], status["step"]) == ("done", 4)
    assert "error" not in status


def test_a_garbled_note(folder, config):
    trial = make_trial(config, {})
    path = folder.begin(trial, "") / "status.json"
    path.write_text("{")
    with pytest.raises(WorkdirError, match=r"status\.json is not JSON"):
        folder.statuses()
