import json
import re

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from transformer.errors import ConfigError, DataError, WorkdirError
from transformer.tasks.parts.labels import save_labels
from transformer.training.experiment import prepare
from transformer.training.options import CHANGEABLE, Train
from transformer.training.programs import make_programs
from transformer.training.saved_runs import adopt_workdir, read_config, write_config
from transformer.training.sections import section, with_optional_sections

TEXT = "the quick brown fox jumps over the lazy dog\n" * 20


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    config = ConfigDict()
    config.model = section("model", "gpt", num_layers=1, num_heads=2, width=8, context=8)
    config.task = section("task", "language_modeling", path=str(path), context=8, batch_size=4)
    config.optimizer = section("optimizer", warmup="10%")
    config.train = section("train", duration="2 epochs", log_every="1%")
    config.mesh, config.init, config.lora = section("mesh"), section("init"), section("lora")
    return config


@pytest.fixture
def workdir(tmp_path, config):
    """A folder with a run whose vocabulary was decided by its data."""
    folder = tmp_path / "run"
    folder.mkdir()
    resolved = config.copy_and_resolve_references()
    resolved.model.vocab_size = 28
    write_config(resolved, folder)
    return folder


def test_prepare_fills_in_what_the_data_decides(config):
    experiment = prepare(config)
    assert experiment.model.vocab_size == experiment.config.model.vocab_size == len(set(TEXT))
    assert config.model.vocab_size is None


def test_prepare_counts_steps(config):
    experiment = prepare(config)
    epoch = experiment.data.pace().examples_per_epoch
    assert experiment.total_steps == -(-2 * epoch // 4)
    assert experiment.steps("log_every") == 1
    assert experiment.steps("evaluate_every") == 100


def test_the_new_state_is_of_the_shapes_promised(config):
    experiment = prepare(config)
    state = make_programs(experiment).new_state(jax.random.key(0))
    assert jax.tree.structure(state) == jax.tree.structure(experiment.shapes)
    for leaf, shape in zip(jax.tree.leaves(state), jax.tree.leaves(experiment.shapes), strict=True):
        assert (leaf.shape, leaf.dtype) == (shape.shape, shape.dtype)
        assert leaf.sharding.is_equivalent_to(shape.sharding, leaf.ndim)


def test_flops_of_a_step_are_three_forward_passes(config):
    vocab, width, tokens = len(set(TEXT)), 8, 4 * 8
    expected = 6 * tokens * (12 * width**2 + vocab * width) + 12 * 8 * width * tokens
    for fields in ({}, {"remat": "full"}, {"scan_layers": True}):
        config.model.compute.update(fields)
        experiment = prepare(config)
        counted = experiment.flops_per_step(experiment.example_batch())
        np.testing.assert_allclose(counted, expected, rtol=0.01)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        ("model", {"vocab_size": 5}, r"vocab_size is 5, smaller than the 28"),
        ("model", {"context": 4}, r"task\.context \(8\) is longer than config\.model\.context"),
        ("train", {"microbatches": 3}, r"batches of 4 rows.*microbatches \(3\)"),
        ("train", {"duration": "soon"}, r"config\.train\.duration is 'soon'"),
        ("optimizer", {"warmup": "soon"}, r"config\.optimizer\.warmup is 'soon'"),
        ("optimizer", {"warmup": "1e10 steps"}, r"config\.optimizer\.warmup is 10,000,000,000 st"),
        ("train", {"duration": "1e15 tokens"}, r"config\.train\.duration is .* steps: fewer than"),
        (
            "model",
            {"compute": {"dtype": "float16"}},
            r"compute\.dtype is 'float16'.*dtype=bfloat16",
        ),
        ("mesh", {"tensor": 64}, "devices"),
        ("optimizer", {"frozen": "kernels"}, r"config\.optimizer\.frozen is 'kernels'.*no param"),
        ("optimizer", {"frozen": "."}, r"matches all parameters: nothing would be trained"),
        ("optimizer", {"rate_scales": "head=2"}, r"config\.optimizer\.rate_scales is 'head'"),
        ("lora", {"rank": 2}, r"config\.lora\.rank needs config\.init\.workdir"),
    ],
    ids=str,
)
def test_combinations_that_cannot_work(config, kind, values, message):
    config[kind].update(values)
    with pytest.raises(ConfigError, match=message):
        prepare(config)


@pytest.mark.parametrize(
    ("warmup", "said"),
    [
        ("1000 steps", [r"warmup is 1,000 steps, and the run has 50: .* at 5\.0% of config\.opt"]),
        ("51 steps", [r"and the run has 50: the learning rate ends at 98\.0%"]),
        ("50 steps", []),
        ("10%", []),
    ],
)
def test_a_warmup_longer_than_the_run_is_said(config, warmup, said):
    config.train.duration, config.optimizer.warmup = "50 steps", warmup
    warnings = prepare(config).warnings()
    assert len(warnings) == len(said)
    for warning, pattern in zip(warnings, said, strict=True):
        assert re.search(pattern, warning), warning


def test_the_trained_alone_have_optimizer_state(config):
    config.optimizer.frozen = "embedding|^blocks/"
    shapes = prepare(config).shapes
    assert {leaf.shape for leaf in jax.tree.leaves(shapes.optimizer)} == {(), (8,)}
    assert set(shapes.params) > {"token_embedding", "blocks", "final_norm"}


def test_adapters_in_a_run_that_begins_from_another(config, workdir):
    config.init.workdir, config.lora.rank, config.lora.trained = str(workdir), 2, ""
    experiment = prepare(config)
    # Queries and values, A [8, 2] and B [2, 2, 4], two moments of each.
    shapes = [leaf.shape for leaf in jax.tree.leaves(experiment.shapes.optimizer)]
    assert sorted(shape for shape in shapes if shape) == 4 * [(2, 2, 4)] + 4 * [(8, 2)]
    config.optimizer.frozen = "embedding"
    with pytest.raises(ConfigError, match=r"config\.optimizer\.frozen.*config\.lora\.rank"):
        prepare(config)


@pytest.mark.parametrize(
    ("job", "names", "difference"),
    [
        ("image_classification", tuple("0123456789"), ""),
        ("image_classification", tuple("9876543210"), "the labels of the run are others"),
        ("masked_images", tuple("0123456789"), "the job of the run is masked_images"),
    ],
)
def test_a_head_is_for_a_job_and_its_labels(tmp_path, job, names, difference):
    config = ConfigDict()
    model = {"image_size": 8, "patch_size": 4, "num_layers": 1, "num_heads": 2, "width": 8}
    config.model = section("model", "vit", **model, channels=1)
    config.task = section("task", "image_classification", preparation={"image_size": 8})
    for kind in ("optimizer", "train", "mesh", "lora"):
        config[kind] = section(kind)
    config.init = section("init", workdir=str(tmp_path))
    source = config.copy_and_resolve_references()
    source.task.name = job
    write_config(source, tmp_path)
    save_labels(names, tmp_path)
    heads = prepare(config).heads()
    assert heads.difference == difference
    assert heads.outputs == ("output", "distillation_output")


def test_a_run_that_has_begun_does_not_need_the_other(tmp_path, config, workdir):
    config.init.workdir = str(tmp_path / "gone")
    with pytest.raises(WorkdirError, match="gone is not the folder of a run"):
        prepare(config)
    (workdir / "checkpoints").mkdir()
    assert prepare(config, workdir).model.vocab_size == 28


def test_a_larger_vocabulary_than_the_data_needs_is_kept(config):
    config.model.vocab_size = 64
    assert prepare(config).model.vocab_size == 64


def test_text_too_short(config):
    config.task.context = config.model.context = 500
    with pytest.raises(DataError, match="validation part"):
        prepare(config)


def test_a_new_folder_takes_the_config_as_it_is(tmp_path, config):
    for folder in (tmp_path / "missing", tmp_path / "empty"):
        assert adopt_workdir(config, folder).to_dict() == config.to_dict()
        (tmp_path / "empty").mkdir(exist_ok=True)


def test_the_same_config_goes_on_with_the_sizes_of_the_run(config, workdir):
    adopted = adopt_workdir(config, workdir)
    assert adopted.model.vocab_size == 28
    assert config.model.vocab_size is None
    assert read_config(workdir).to_dict() == adopted.to_dict()


def test_every_difference_is_shown(config, workdir):
    config.optimizer.learning_rate = 0.5
    config.model.width = 16
    config.model.vocab_size = 29
    with pytest.raises(WorkdirError) as error:
        adopt_workdir(config, workdir)
    message = str(error.value)
    assert "config.optimizer.learning_rate: 0.001 in the workdir, 0.5 now" in message
    assert "config.model.width: 8 in the workdir, 16 now" in message
    assert "config.model.vocab_size: 28 in the workdir, 29 now" in message
    assert message.count("\n  config.") == 3
    assert str(workdir) in message


NEW_VALUES = {str: "7 steps", int: 7, float: 0.7}


@pytest.mark.parametrize("field", sorted(Train.__dataclass_fields__))
def test_what_may_change_in_a_workdir(config, workdir, field):
    before = getattr(Train(), field)
    kind = int if field == "validation_batches" else type(before)
    config.train[field] = changed = not before if kind is bool else NEW_VALUES[kind]
    if field in CHANGEABLE:
        assert adopt_workdir(config, workdir).train[field] == changed
    else:
        with pytest.raises(WorkdirError, match=rf"config\.train\.{field}:"):
            adopt_workdir(config, workdir)


def test_a_field_set_back_to_none_is_a_difference(config, workdir):
    resolved = read_config(workdir)
    resolved.model.feed_forward_width = 64
    write_config(resolved, workdir)
    with pytest.raises(WorkdirError, match="feed_forward_width"):
        adopt_workdir(config, workdir)


def test_a_folder_of_something_else(tmp_path, config):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(WorkdirError, match="not the folder of a run"):
        adopt_workdir(config, tmp_path)


def test_a_garbled_config(workdir, config):
    (workdir / "config.json").write_text("{")
    with pytest.raises(WorkdirError, match="not JSON"):
        adopt_workdir(config, workdir)


def test_a_config_is_written_and_read(tmp_path, config):
    write_config(config, tmp_path)
    assert read_config(tmp_path).to_dict() == config.to_dict()
    assert not list(tmp_path.glob("*.part"))


def test_a_run_of_before_has_the_defaults_of_newer_fields(workdir):
    path = workdir / "config.json"
    saved = json.loads(path.read_text())
    whole = read_config(workdir).to_dict()
    del saved["task"]["stop_ids"], saved["task"]["temperature"], saved["optimizer"]["schedule"]
    saved["model"]["unknown"] = 1
    path.write_text(json.dumps(saved))
    found = read_config(workdir).to_dict()
    assert found["model"].pop("unknown") == 1
    assert found == json.loads(json.dumps(whole)) | {"task": found["task"]}
    assert (found["task"]["stop_ids"], found["task"]["temperature"]) == ((), 0.8)


def test_a_section_inside_of_one_that_came_later(tmp_path):
    """A run of before has none, or one with fewer fields; it goes on."""
    config = with_optional_sections(
        ConfigDict(
            {
                "model": section("model", "vaswani"),
                "task": section("task", "translation"),
                **{name: section(name) for name in ("optimizer", "train", "mesh")},
            }
        )
    )
    for removed in (None, "more_ends"):
        content = config.to_dict()
        if removed is None:
            del content["task"]["search"]
        else:
            del content["task"]["search"][removed]
        (tmp_path / "config.json").write_text(json.dumps(content))
        assert read_config(tmp_path).task.search.more_ends == ()
        assert adopt_workdir(config, tmp_path).task.search.kind == "wu"
        json.dumps(with_optional_sections(read_config(tmp_path)).to_dict())


def test_what_a_run_began_with_may_change_once_it_has_begun(tmp_path):
    config = with_optional_sections(
        ConfigDict(
            {
                "model": section("model", "gpt"),
                "task": section("task", "language_modeling"),
                **{name: section(name) for name in ("optimizer", "train", "mesh")},
            }
        )
    )
    content = config.to_dict()
    content["init"]["fresh"] = "^lora/"
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(WorkdirError, match=r"config\.init\.fresh"):
        adopt_workdir(config, tmp_path)
    (tmp_path / "checkpoints").mkdir()
    assert adopt_workdir(config, tmp_path).init.fresh is None
