"""Translation as a library: it learns its pairs by heart, and compiles each shape once."""

import random

import pytest
from ml_collections import ConfigDict

from tests.common import logged_compilations
from transformer.training.loop import train
from transformer.training.sections import section

WORDS = ["ei", "zwei", "drei", "vier", "acht"]


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = random.Random(0)
    lines = [source.sample(WORDS, k=source.randint(1, 5)) for _ in range(24)]
    lines += [source.choices(WORDS, k=9) for _ in range(8)]
    for side, order in (("source", 1), ("target", -1)):
        text = "".join(" ".join(line[::order]) + "\n" for line in lines)
        (tmp_path / side).write_text(text, "utf-8")
    files = f"{tmp_path}/source,{tmp_path}/target"
    config = ConfigDict()
    config.model = section(
        "model",
        "vaswani",
        num_encoder_layers=1,
        num_decoder_layers=1,
        num_heads=4,
        width=32,
        feed_forward_width=64,
        norm_order="pre",
        dropout_rate=0.0,
    )
    config.task = section(
        "task",
        "translation",
        train=files,
        validation=files,
        tokenizer={"size": 300},
        max_length=24,
        batch_tokens=192,
        label_smoothing=0.0,
        beam_size=2,
        extra_length=4,
    )
    config.optimizer = section("optimizer", learning_rate=1e-2, warmup="20", weight_decay=0.0)
    config.train = section(
        "train", duration="240 steps", evaluate_every="240", save_every="240", tensorboard=False
    )
    config.mesh = section("mesh")
    return config


def test_learns_by_heart_and_compiles_each_shape_once(config, tmp_path, caplog):
    with logged_compilations(caplog):
        code, summary = train(config, tmp_path / "run")
    assert code == 0
    assert summary["train"]["loss"] < 0.05
    assert summary["final"]["exact_match"] == 100.0
    compiled = [line for line in caplog.messages if line.startswith("Finished XLA compilation")]
    assert sum("jit(steps)" in line for line in compiled) == 2
