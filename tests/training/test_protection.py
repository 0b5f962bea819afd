"""What lies beside checkpoints belongs to them or is named; what is damaged is said to be."""

import json
import shutil

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from tests.runs import without_seals
from transformer.errors import CheckpointError, WorkdirError
from transformer.training.checkpoints import Checkpoints
from transformer.training.experiment import prepare
from transformer.training.notes import (
    described,
    newest_notes,
    require_files,
    require_same_run,
    sealed,
)
from transformer.training.opened import checkpoint_items, metadata_of
from transformer.training.parameters import read_parameters
from transformer.training.saved_runs import adopt_workdir, read_run, write_config
from transformer.training.sections import section

LOSSES = {4: 2.0, 8: 1.0, 12: 3.0}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder as training leaves it, with parameters that say of which step they are."""
    folder = tmp_path_factory.mktemp("protection")
    text = folder / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog\n" * 20)
    config = ConfigDict()
    config.model = section("model", "gpt", num_layers=1, num_heads=2, width=8, context=8)
    config.task = section("task", "language_modeling", path=str(text), context=8, batch_size=4)
    config.optimizer = section("optimizer", warmup="10%")
    config.train = section("train", duration="20 steps", keep_last=3)
    config.mesh, config.init, config.lora = section("mesh"), section("init"), section("lora")
    workdir = folder / "run"
    workdir.mkdir()
    given = config.copy_and_resolve_references()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        experiment = prepare(config)
    write_config(experiment.config, workdir)
    experiment.data.save(workdir)
    shapes = checkpoint_items(experiment.shapes)["params"]
    about = metadata_of(experiment, workdir)
    with Checkpoints(workdir, keep_last=3) as checkpoints:
        for step, loss in LOSSES.items():
            params = jax.tree.map(lambda x, n=step: np.full(x.shape, n, x.dtype), shapes)
            checkpoints.save(
                step, {"params": params}, data={}, metadata=about, validation_loss=loss
            )
        checkpoints.wait()
    return workdir, given, experiment


@pytest.fixture
def workdir(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "run")
    return tmp_path / "run"


def opened(workdir, checkpoint="best"):
    """The step whose parameters are given."""
    found = read_parameters(workdir, checkpoint)
    values = {float(leaf.flat[0]) for leaf in map(np.asarray, jax.tree.leaves(found.params))}
    assert values == {found.step}
    return found.step


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        # Parameters of the same shapes, another model.
        ("model", "num_heads", 1),
        ("model", "dropout_rate", 0.5),
        ("task", "temperature", 2.0),
        ("optimizer", "learning_rate", 3e-4 * 1.0001),
        ("train", "seed", 1),
        ("train", "ema_decay", 0.5),
        ("model", "name", "gpd"),
    ],
)
def test_an_edited_config_is_named(trained, workdir, part, field, value):
    edit(workdir / "config.json", lambda content: content[part].update({field: value}))
    given = trained[1].copy_and_resolve_references()
    for use in (read_parameters, read_run, lambda run: adopt_workdir(given, run)):
        with pytest.raises(WorkdirError, match=r"config\.json is not .* step 12") as error:
            use(workdir)
        assert f"config.{part}.{field}: " in str(error.value)


def test_what_may_change_of_a_config_may(trained, workdir):
    edit(workdir / "config.json", lambda content: content["train"].update(duration="30 steps"))
    edit(workdir / "config.json", lambda content: content["init"].update(fresh="output"))
    # A field that came later has its default.
    edit(workdir / "config.json", lambda content: content["train"].pop("tensorboard"))
    assert opened(workdir) == 8
    moved = workdir.rename(workdir.with_name("moved"))
    assert opened(moved) == 8
    adopt_workdir(trained[1].copy_and_resolve_references(), moved)


def test_a_lost_config_is_in_the_checkpoints(trained, workdir):
    """Whoever trains has it besides; others are told how to get it again."""
    (workdir / "config.json").unlink()
    adopted = adopt_workdir(trained[1].copy_and_resolve_references(), workdir)
    assert adopted.model.vocab_size == trained[2].config.model.vocab_size
    with pytest.raises(WorkdirError, match=r"no config\.json"):
        read_run(workdir)


@pytest.mark.parametrize("content", ["[]", "3", '{"model": 3}', "[" * 100_000, '{"model": {}}'])
def test_a_config_that_is_none(workdir, content):
    (workdir / "config.json").write_text(content)
    with pytest.raises(WorkdirError, match=r"config\.json is damaged"):
        read_run(workdir)


def test_an_edited_file_is_named_and_a_lost_one_made_again(trained, workdir):
    path = workdir / "tokenizer.json"
    whole = path.read_text()
    # Only laid out otherwise.
    path.write_text(json.dumps(json.loads(whole)))
    assert opened(workdir) == 8
    path.write_text(whole.replace('"q":', '"?":').replace('"k":', '"q":').replace('"?":', '"k":'))
    given = trained[1].copy_and_resolve_references()
    for use in (read_parameters, lambda run: adopt_workdir(given, run)):
        with pytest.raises(
            WorkdirError,
            match=r"tokenizer\.json is not what the checkpoint of step \d+ \(checkpoints/\d+\)",
        ):
            use(workdir)
    path.unlink()
    with pytest.raises(WorkdirError, match=r"tokenizer\.json is missing"):
        opened(workdir)
    adopt_workdir(given, workdir)
    about = metadata_of(trained[2], workdir)
    require_same_run(about, workdir, newest_notes(workdir))
    about["files"] = {"tokenizer.json": "another"}
    with pytest.raises(WorkdirError, match=r"tokenizer\.json is missing, and cannot be made again"):
        require_same_run(about, workdir, newest_notes(workdir))
    path.write_text(whole)
    with pytest.raises(WorkdirError, match="the data have changed"):
        require_same_run(about | {"data_fingerprint": "x"}, workdir, newest_notes(workdir))


@pytest.mark.parametrize(
    ("name", "text", "spoiled"),
    [
        ("labels.json", '["cat", "dog"]', '["dog", "cat"]'),
        ("preparation.json", '{"channels": 3, "mean": [0.5]}', '{"channels": 1, "mean": [0.5]}'),
        ("tokenizer.model", "abc", "abd"),
        ("embedding.json", '{"pooling": ["cls"]}', "{"),
    ],
)
def test_any_file_of_the_task_is_protected(tmp_path, trained, name, text, spoiled):
    path = tmp_path / name
    path.write_text(text)
    metadata = sealed(1, {}, described(trained[2].config, tmp_path))
    notes = newest_notes(trained[0])._replace(metadata=metadata)
    require_files(tmp_path, notes)
    path.write_text(spoiled)
    with pytest.raises(WorkdirError, match=f"{name} is not what"):
        require_files(tmp_path, notes)
    path.unlink()
    path.mkdir()
    with pytest.raises(WorkdirError, match=f"{name} is missing"):
        require_files(tmp_path, notes, may_lack=True)


def test_the_next_takes_the_place_of_a_damaged_one(workdir, capsys):
    def spoil(step):
        (workdir / "checkpoints" / str(step) / "params" / "manifest.ocdbt").write_bytes(b"")

    assert (opened(workdir), opened(workdir, "last"), opened(workdir, "4")) == (8, 12, 4)
    assert not capsys.readouterr().err
    spoil(8)
    assert opened(workdir) == 4
    said = capsys.readouterr().err
    assert "checkpoints/8 is damaged" in said
    assert "The checkpoint of step 4 is used in its place." in said
    assert opened(workdir, "last") == 12
    assert not capsys.readouterr().err
    # What was asked for by its number, or by how many, is not another.
    for name in ("8", "last:2"):
        with pytest.raises(CheckpointError, match="checkpoints/8 is damaged"):
            opened(workdir, name)
    spoil(12)
    assert opened(workdir, "last") == 4
    spoil(4)
    with pytest.raises(CheckpointError, match="checkpoints/4 is damaged"):
        opened(workdir)
    assert {path.name for path in (workdir / "checkpoints").iterdir()} == {"4", "8", "12"}


def test_whether_damaged_notes_are_of_the_best_is_not_known(workdir, capsys):
    """An edited loss must not choose another checkpoint in silence."""
    note = workdir / "checkpoints" / "8" / "metadata" / "metadata"
    edit(note, lambda content: content.update(validation_loss=5.0))
    assert opened(workdir) == 4
    assert "checkpoints/8 is damaged" in capsys.readouterr().err


def test_a_run_of_before_opens(workdir):
    without_seals(workdir)
    edit(workdir / "config.json", lambda content: content["task"].update(temperature=2.0))
    assert opened(workdir) == 12
