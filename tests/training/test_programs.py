import dataclasses
from unittest.mock import Mock

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from tests.common import assert_trees_close, logged_compilations
from transformer.traced import is_zero
from transformer.training.experiment import Experiment, prepare
from transformer.training.feeding import Feeder
from transformer.training.loop import train
from transformer.training.programs import make_programs, plain_programs, program_key
from transformer.training.recipes import numbers_of
from transformer.training.sections import section
from transformer.training.shared import Shared

GPUS, PASSES = ("gpu", "cuda"), "xla_disable_hlo_passes"
TEXT = "the quick brown fox jumps over the lazy dog\n" * 20


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text(TEXT)
    config = ConfigDict()
    config.model = section("model", "gpt", num_layers=1, num_heads=2, width=8, context=8)
    config.task = section(
        "task",
        "language_modeling",
        path=str(tmp_path / "text.txt"),
        context=8,
        batch_size=4,
        sample_length=4,
    )
    config.optimizer = section("optimizer", warmup="10%")
    config.train = section("train", duration="4 steps", log_every="1", tensorboard=False)
    config.mesh, config.init, config.lora = section("mesh"), section("init"), section("lora")
    return config


def test_numbers_are_found_where_they_are_declared(config):
    config.train.duration = "30 steps"
    config.task.z_loss = 0.5
    numbers = numbers_of(prepare(config))
    assert numbers["task"] == {"z_loss": np.float32(0.5)}
    assert numbers["model"] == numbers["train"] == {}
    assert numbers["steps"] == {"warmup_steps": 3, "total_steps": 30}
    assert numbers["optimizer"].keys() == {
        *("learning_rate", "final_fraction", "beta1", "beta2", "epsilon", "weight_decay"),
        *("clip_norm", "muon_beta"),
    }


def test_a_zero_that_leaves_something_out_is_a_constant(config):
    key = program_key(config)
    config.optimizer.weight_decay = 0.0
    assert program_key(config) == key
    config.optimizer.clip_norm = 0.0
    assert program_key(config) != key
    assert "clip_norm" not in numbers_of(prepare(config))["optimizer"]


def test_an_argument_of_a_program_is_never_zero():
    assert is_zero(0.0)
    assert not is_zero(0.1)
    assert not jax.jit(lambda number: jax.numpy.asarray(is_zero(number)))(0.0)


def test_programs_are_the_same_for_other_numbers_and_logistics(config):
    key = program_key(config)
    for kind, changes in {
        "optimizer": {"learning_rate": 1.0, "beta1": 0.5, "warmup": "2 steps"},
        "train": {"seed": 3, "duration": "9 steps", "save_every": "1 steps", "keep_last": 5},
    }.items():
        config[kind].update(changes)
    assert program_key(config) == key
    for kind, field, value in [
        ("model", "dropout_rate", 0.1),
        ("model", "width", 16),
        ("optimizer", "schedule", "linear"),
        ("train", "steps_per_dispatch", 2),
    ]:
        before = config[kind][field]
        config[kind][field] = value
        assert program_key(config) != key
        config[kind][field] = before


VARIANTS = [
    {
        "model": {"dropout_rate": 0.2, "compute": {"scan_layers": True, "remat": "full"}},
        "task": {"label_smoothing": 0.1, "z_loss": 0.01},
        "train": {"ema_decay": 0.9},
        "optimizer": {"schedule": "inverse_square_root"},
    },
    {
        "optimizer": {"algorithm": "muon", "schedule": "cosine", "warmup": "0 steps"},
        "task": {"vocab_chunk": 5, "label_smoothing": 0.1},
    },
]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_numbers_as_arguments_do_what_they_do_as_constants(config, changes):
    for kind, values in changes.items():
        config[kind].update(values)
    experiment = prepare(config)
    plain, numbers = plain_programs(experiment), numbers_of(experiment)
    feeder = Feeder(experiment.data.train_batches(seed=0, num_steps=2), limit=1)
    batches, count = feeder.take(1)
    constants = jax.tree.map(lambda x: x.item(), numbers)
    state = jax.jit(plain.new_state)(jax.random.key(0))
    state = dataclasses.replace(state, step=state.step + 1)
    expected = jax.jit(lambda s, b, c: plain.steps(s, b, c, constants))(state, batches, count)
    found = jax.jit(plain.steps)(state, batches, count, numbers)
    key = [s.key for s in (found[0], expected[0])]
    assert (jax.random.key_data(key[0]) == jax.random.key_data(key[1])).all()
    parts = [(dataclasses.replace(s, key=None), metrics) for s, metrics in (found, expected)]
    assert_trees_close(*parts, rtol=2e-4, atol=1e-6)


def test_runs_that_differ_in_numbers_compile_once(config, tmp_path, caplog):
    config.model.dropout_rate = 0.1
    shared, trained = Shared(), []
    with logged_compilations(caplog):
        for seed in range(4):
            config.train.seed = seed
            config.optimizer.learning_rate = 1e-3 * (seed + 1)
            config.optimizer.weight_decay = 0.1 * seed
            config.model.dropout_rate = 0.1 * (seed + 1)
            config.train.duration = f"{4 + seed} steps"
            code, summary = train(config, tmp_path / f"run{seed}", shared=shared, curves=False)
            trained.append(summary["validation"]["loss"])
            assert (code, summary["step"]) == (0, 4 + seed)
    compiled = [line for line in caplog.messages if line.startswith("Finished XLA compilation")]
    for name in ("jit(create)", "jit(steps)", "jit(evaluation_step)", "jit(_generate)"):
        assert sum(name in line for line in compiled) <= 1, (name, compiled)
    assert sum("jit(steps)" in line for line in compiled) == 1
    assert len(set(trained)) == 4


@pytest.mark.parametrize(
    ("platform", "options"),
    [("cpu", None), ("tpu", None), *[(gpu, {PASSES: "multi_output_fusion"}) for gpu in GPUS]],
)
def test_for_a_gpu_the_compiler_is_told_not_to_join_arrays_of_the_initial_state(
    config, monkeypatch, platform, options
):
    told = {}
    experiment = prepare(config)
    monkeypatch.setattr(jax, "jit", lambda run, **settings: told.update({run: settings}) or run)
    mesh = Mock(devices=np.array([Mock(platform=platform)]))
    made = Mock(spec=Experiment, mesh=mesh, shapes=experiment.shapes)
    make_programs(made)
    assert told[made.create]["compiler_options"] == options


def test_a_run_can_be_stopped_early(config, tmp_path):
    config.train.duration, config.train.evaluate_every = "9 steps", "3 steps"
    asked, shared = [], Shared()

    def should_stop(step, loss):
        asked.append(step)
        return step == 6

    code, summary = train(config, tmp_path / "run", should_stop=should_stop, shared=shared)
    assert (code, summary["step"], asked) == (0, 6, [3, 6])
    assert (tmp_path / "run" / "checkpoints" / "6").is_dir()
    # It is no end: the same command goes on.
    assert train(config, tmp_path / "run", shared=shared)[1]["step"] == 9
