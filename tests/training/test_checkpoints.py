"""Which checkpoints stay, which is the best, and what happens to those that cannot be used."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from transformer.errors import CheckpointError, WorkdirError
from transformer.training.checkpoints import Checkpoints, lowest
from transformer.training.saved_arrays import described_arrays, fingerprints, hashed

PLACE = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])


def save(workdir, losses, *, keep_last=2):
    """Saves a checkpoint for each step in one opening of the folder."""
    with Checkpoints(workdir, keep_last=keep_last) as checkpoints:
        for step, loss in losses.items():
            checkpoints.save(
                step,
                {"params": {"kernel": jnp.full((2, 2), float(step))}},
                data={"next_index": step},
                metadata={"data_fingerprint": "abc"},
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


def test_what_a_killed_save_has_left_goes_when_its_run_goes_on(tmp_path):
    """The process was killed between the commit of a checkpoint and the deletion of old ones."""
    save(tmp_path, {1: 2.0, 2: None})
    shutil.copytree(tmp_path / "checkpoints" / "2", tmp_path / "two")
    save(tmp_path, {3: None, 4: None})
    (tmp_path / "two").rename(tmp_path / "checkpoints" / "2")
    assert kept(tmp_path) == ([1, 2, 3, 4], 1)
    with Checkpoints(tmp_path, keep_last=2) as checkpoints:
        wanted = {"params": {"kernel": jnp.zeros((2, 2))}}
        assert checkpoints.restore_newest(wanted, pytest.fail).step == 4
        assert checkpoints.steps() == [1, 3, 4]
    assert kept(tmp_path) == ([1, 3, 4], 1)
    assert not list((tmp_path / "checkpoints").glob(".deleted/*"))


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
    content["arrays"]["params"]["/kernel"][0] += 1
    note.write_text(json.dumps(content))
    assert kept(tmp_path) == ([1, 2], 1)
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


WANTED = {"params": {"kernel": jax.ShapeDtypeStruct((2, 2), jnp.float32, sharding=PLACE)}}


def opened(workdir, *, keep_last=3):
    """The step restored, and what was said, by a process that would go on."""
    said = []
    with Checkpoints(workdir, keep_last=keep_last) as checkpoints:
        restored = checkpoints.restore_newest(WANTED, said.append)
        assert restored is not None
        np.testing.assert_array_equal(restored.state["params"]["kernel"], restored.step)
        return restored.step, said


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        # Other batches than those that come next.
        ("data", '"next_index": 3', '"next_index": 4'),
        ("metadata", '"data_fingerprint": "abc"', '"data_fingerprint": "abd"'),
        # Another best.
        ("metadata", '"validation_loss": 3.0', '"validation_loss": 0.5'),
        ("metadata", '"seal"', '"sebl"'),
    ],
)
def test_one_digit_of_the_notes_is_noticed(tmp_path, name, old, new):
    """The one before takes the place, and none is lost."""
    save(tmp_path, {1: 1.0, 2: 2.0, 3: 3.0}, keep_last=3)
    edit(tmp_path / "checkpoints" / "3" / name / "metadata", old, new)
    step, said = opened(tmp_path)
    assert step == 2
    assert "step 3 cannot be read" in said[0]
    assert "3 is damaged" in said[0]
    assert (tmp_path / "unreadable_checkpoints" / "3" / "params").is_dir()


def test_a_checkpoint_under_another_name_is_noticed(tmp_path):
    save(tmp_path, {1: None, 2: None})
    folder = tmp_path / "checkpoints"
    shutil.copytree(folder / "1", folder / "3")
    (folder / "2").rename(folder / "two")
    (folder / ".hidden").touch()
    step, said = opened(tmp_path)
    assert step == 1
    assert "two is no checkpoint" in said[0]
    assert "step 3 cannot be read" in said[1]


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_folder_is_set_aside(tmp_path, kind):
    """It would be in the way of the next save of its step."""
    save(tmp_path, {1: None, 2: None})
    place = tmp_path / "checkpoints" / "2"
    shutil.rmtree(place)
    place.write_text("") if kind == "file" else place.symlink_to(tmp_path / "nowhere")
    assert opened(tmp_path)[0] == 1
    assert save(tmp_path, {2: None}) == ([1, 2], None)


def test_a_damaged_best_is_not_deleted(tmp_path):
    """Without its loss it is neither new nor the best, which is what goes."""
    save(tmp_path, {1: 1.0, 2: 2.0, 3: 3.0}, keep_last=1)
    edit(tmp_path / "checkpoints" / "1" / "metadata" / "metadata", "1.0", "1.5")
    assert opened(tmp_path)[0] == 3
    assert save(tmp_path, {4: 4.0, 5: 5.0}, keep_last=1) == ([3, 5], 3)
    assert (tmp_path / "unreadable_checkpoints" / "1" / "params").is_dir()


def test_two_of_one_step_are_set_aside(tmp_path):
    for _ in range(2):
        save(tmp_path, {2: None} if (tmp_path / "checkpoints").exists() else {1: None, 2: None})
        edit(tmp_path / "checkpoints" / "2" / "metadata" / "metadata", "abc", "abd")
        assert opened(tmp_path)[0] == 1
    assert sorted(p.name for p in (tmp_path / "unreadable_checkpoints").iterdir()) == ["2", "2-2"]


def test_other_items_may_be_damaged(tmp_path):
    """Whoever only evaluates does not need the optimizer."""
    with Checkpoints(tmp_path) as checkpoints:
        items = {"params": {"kernel": jnp.full((2, 2), 1.0)}, "training": {"step": jnp.int32(1)}}
        checkpoints.save(1, items, data={}, metadata={}, validation_loss=None)
        checkpoints.wait()
    for name in ("_METADATA", "_sharding", "manifest.ocdbt"):
        (tmp_path / "checkpoints" / "1" / "training" / name).write_text("{")
    assert opened(tmp_path)[0] == 1
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        step = {"step": jax.ShapeDtypeStruct((), jnp.int32, sharding=PLACE)}
        with pytest.raises(CheckpointError, match=r"checkpoints/1 is damaged: its training"):
            checkpoints.restore(1, WANTED | {"training": step})
        # As of imported runs.
        with pytest.raises(CheckpointError, match=r"checkpoints/1 has no average: it was saved"):
            checkpoints.restore(1, {"average": WANTED["params"]})


@pytest.mark.parametrize("lost", [None, "fingerprints"])
def test_a_checkpoint_of_before_has_no_seal(tmp_path, lost):
    save(tmp_path, {1: None, 2: None})
    note = tmp_path / "checkpoints" / "2" / "metadata" / "metadata"
    prints = {"params": fingerprints({"kernel": jnp.full((2, 2), 2.0)})}
    content = {"data_fingerprint": "", "fingerprints": prints}
    content.pop(lost, None)
    note.write_text(json.dumps(content))
    step, said = opened(tmp_path)
    assert (step, bool(said)) == ((1, True) if lost else (2, False))


def test_numbers_that_all_change_alike_are_noticed():
    """As where one bit changes of an array that is stored as one number and a count."""
    ones, halves = jnp.ones(512), jnp.full(512, 0.5)
    assert fingerprints({"x": ones}) == fingerprints({"x": halves})
    assert described_arrays({"x": ones}) != described_arrays({"x": halves})
    swapped = ones.at[3].set(2.0), ones.at[4].set(2.0)
    assert described_arrays({"x": swapped[0]}) != described_arrays({"x": swapped[1]})


def test_a_folder_of_checkpoints_that_is_a_file(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(WorkdirError, match="checkpoints is no folder"):
        Checkpoints(tmp_path)


@pytest.mark.parametrize("name", ["[a]", "a*", "a?", "a\\b"])
def test_paths_that_orbax_takes_for_others(tmp_path, name):
    with pytest.raises(WorkdirError, match=r"has a .*Give the path of a folder without any of"):
        Checkpoints(tmp_path / name / "run")
    assert not list(tmp_path.iterdir())


def test_a_deletion_that_is_cut_short_leaves_nothing_that_looks_like_a_checkpoint(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("transformer.training.checkpoints.shutil.rmtree", lambda *_, **__: None)
    save(tmp_path, {1: None, 2: None, 3: None}, keep_last=1)
    folder = tmp_path / "checkpoints"
    removed = sorted(path.name for path in (folder / ".deleted").iterdir())
    assert removed == ["1", "2"]
    (folder / ".deleted" / "1" / "metadata" / "metadata").unlink()
    monkeypatch.undo()
    assert opened(tmp_path) == (3, [])
    assert sorted(path.name for path in folder.iterdir()) == ["3"]


@pytest.mark.parametrize(
    "array, expected",
    [
        (jnp.arange(24, dtype=jnp.float32).reshape(2, 3, 4), 1144182191),
        (jnp.asarray([True, False, True]), 3580300312),
        (jnp.asarray(1.5, jnp.bfloat16), 2681533129),
        (jnp.zeros((0, 3)), 0),
    ],
    ids=lambda x: str(getattr(x, "dtype", "")),
)
def test_fingerprints_are_the_same_on_host_and_device_and_as_they_were(array, expected):
    """Those of checkpoints that exist must stay."""
    assert int(hashed(np.asarray(array), np)) == expected
    assert int(hashed(array, jnp)) == expected
    assert described_arrays({"x": array})["/x"][0] == expected
    assert described_arrays({"x": np.asarray(array)})["/x"][0] == expected
