"""Which checkpoints stay, which is the best, and what happens to those that cannot be used."""

import json

import jax.numpy as jnp
import orbax.checkpoint as ocp
import pytest

from transformer.errors import CheckpointError, WorkdirError
from transformer.training.checkpoints import Checkpoints, lowest


def save(workdir, losses, *, keep_last=2):
    """Saves a checkpoint for each step in one opening of the folder."""
    with Checkpoints(workdir, keep_last=keep_last) as checkpoints:
        for step, loss in losses.items():
            checkpoints.save(
                step,
                {"params": {"kernel": jnp.full((2, 2), float(step))}},
                data={},
                metadata={"data_fingerprint": ""},
                validation_loss=loss,
            )
        checkpoints.wait()
    return kept(workdir)


def kept(workdir):
    """The steps on disk, as a process that comes later finds them, and the best of them."""
    with Checkpoints(workdir, read_only=True) as checkpoints:
        return checkpoints.steps(), checkpoints.best_step()


def test_the_best_is_the_lowest_loss_in_any_later_process(tmp_path):
    assert save(tmp_path, {1: 3.0, 2: 1.0, 3: 2.0, 4: 2.5}) == ([2, 3, 4], 2)
    # After a resume that does worse, and after one that does better.
    assert save(tmp_path, {5: 1.5, 6: 4.0}) == ([2, 5, 6], 2)
    assert save(tmp_path, {7: 0.5, 8: 0.75, 9: 0.875}) == ([7, 8, 9], 7)


def test_nothing_else_is_kept_across_any_number_of_resumes(tmp_path):
    """Checkpoints without a loss, as those of SIGTERM, go like all others."""
    assert save(tmp_path, {1: 2.0, 2: None, 3: None, 4: None}) == ([1, 3, 4], 1)
    assert save(tmp_path, {5: None}) == ([1, 4, 5], 1)
    assert save(tmp_path, {6: 1.0, 7: None, 8: None}) == ([6, 7, 8], 6)
    assert save(tmp_path, {9: None}, keep_last=1) == ([6, 9], 6)
    assert save(tmp_path, {10: None, 11: None, 12: 0.5}, keep_last=3) == ([10, 11, 12], 12)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_never_the_best(tmp_path, loss):
    assert save(tmp_path, {1: 2.0, 2: loss, 3: 3.0}) == ([1, 2, 3], 1)
    assert save(tmp_path, {4: loss}) == ([1, 3, 4], 1)


def test_without_losses_none_is_the_best(tmp_path):
    assert save(tmp_path, {1: None, 2: None, 3: None}) == ([2, 3], None)


def test_the_first_of_equals():
    assert lowest({3: 1.0, 2: 1.0, 4: 2.0}, [4, 3, 2]) == 2
    assert lowest({3: 1.0}, [1, 2]) is None


def test_a_step_that_is_there_already_is_not_skipped_in_silence(tmp_path):
    save(tmp_path, {4: None})
    with pytest.raises(CheckpointError, match="step 4 is not newer than step 4"):
        save(tmp_path, {4: None})


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"validation_loss": "low"}', "\x00\x01"])
def test_a_damaged_note_is_not_the_best_and_stops_nobody(tmp_path, text):
    """Restoring it is another matter: `end_to_end.test_damage`."""
    save(tmp_path, {1: 1.0, 2: 2.0, 3: 3.0})
    (tmp_path / "checkpoints" / "1" / "metadata" / "metadata").write_text(text)
    assert kept(tmp_path) == ([1, 2, 3], 2)


def test_what_was_set_aside_is_not_the_best(tmp_path):
    save(tmp_path, {1: 2.0, 2: 1.0})
    note = tmp_path / "checkpoints" / "2" / "metadata" / "metadata"
    content = json.loads(note.read_text())
    content["fingerprints"]["params"]["/kernel"] += 1
    note.write_text(json.dumps(content))
    assert kept(tmp_path) == ([1, 2], 2)
    said = []
    with Checkpoints(tmp_path) as checkpoints:
        wanted = {"params": {"kernel": jnp.zeros((2, 2))}}
        restored = checkpoints.restore_newest(wanted, said.append)
        assert restored is not None
        assert restored.step == checkpoints.best_step() == 1
    assert "step 2 cannot be read" in said[0]


def test_the_first_error_is_told(tmp_path, monkeypatch):
    """Also where closing then fails, as on a full disk."""

    def full(self):
        raise ValueError("no space")

    monkeypatch.setattr(ocp.CheckpointManager, "close", full)
    with pytest.raises(ZeroDivisionError), Checkpoints(tmp_path):
        raise ZeroDivisionError
    with pytest.raises(CheckpointError, match="no space"), Checkpoints(tmp_path):
        pass


@pytest.mark.parametrize("name", ["[a]", "a*", "a?", "a\\b"])
def test_paths_that_orbax_takes_for_others(tmp_path, name):
    with pytest.raises(WorkdirError, match=r"has a .*give the path of a folder without any of"):
        Checkpoints(tmp_path / name / "run")
    assert not list(tmp_path.iterdir())
