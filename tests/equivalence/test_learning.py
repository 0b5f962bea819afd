"""The loop as a library: it overfits, compiles once, and begins at ln V."""

import json
import math
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from tests.common import logged_compilations
from transformer.planning.dry_run import plan
from transformer.training.loop import train
from transformer.training.sections import section

TEXT = "Shall I compare thee to a summer's day? Thou art more lovely and more temperate: " * 4


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "sonnet.txt"
    path.write_text(TEXT, "utf-8")
    config = ConfigDict()
    config.model = section("model", "gpt", num_layers=1, num_heads=2, width=32, context=32)
    config.task = section(
        "task",
        "language_modeling",
        path=str(path),
        validation_path=str(path),
        context=32,
        batch_size=8,
        sample_length=10,
    )
    config.optimizer = section(
        "optimizer", learning_rate=1e-2, warmup="20 steps", weight_decay=0.0, schedule="linear"
    )
    config.train = section(
        "train",
        duration="160 steps",
        log_every="1",
        evaluate_every="80",
        save_every="160",
        steps_per_dispatch=16,
        tensorboard=False,
    )
    config.mesh = section("mesh")
    return config


def losses(workdir: Path) -> list[float]:
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if line["split"] == "train"]


def test_overfits_compiles_once_and_begins_at_ln_v(config, tmp_path, caplog):
    # A context and one character: a single window, so the same batch in every step.
    Path(config.task.path).write_text(TEXT[:33], "utf-8")
    vocab_size = len(set(TEXT[:33]))
    with logged_compilations(caplog):
        code, summary = train(config, tmp_path / "run")
    assert code == 0
    assert summary["step"] == 160
    found = losses(tmp_path / "run")
    assert found[0] == pytest.approx(math.log(vocab_size), rel=0.02)
    assert found[-1] < 0.01, found[-1]
    compiled = [line for line in caplog.messages if line.startswith("Finished XLA compilation")]
    for name in ("jit(steps)", "jit(evaluation_step)"):
        assert sum(name in line for line in compiled) == 1, compiled


def test_dry_run_writes_nothing_and_agrees_with_the_run(config, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    report = plan(config)
    new = [path for path in sorted(tmp_path.rglob("*")) if path not in before]
    assert all("cache" in path.parts for path in (p.relative_to(tmp_path) for p in new))
    assert report["config"]["model"]["vocab_size"] == len(set(TEXT))
    assert report["parameters"] == sum(row["count"] for row in report["parameter_table"])
    assert report["memory"]["optimizer"] == 2 * report["memory"]["parameters"] + 2 * 4
    assert report["total_steps"] == 160
    assert set(report["memory"]) == {"parameters", "optimizer"}
