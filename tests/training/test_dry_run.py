import re

import pytest
from ml_collections import ConfigDict

from tests.common import logged_compilations
from transformer.planning import dry_run
from transformer.training.sections import section


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "text.txt"
    path.write_text("the quick brown fox\n" * 20)
    config = ConfigDict()
    config.model = section("model", "gpt", num_layers=1, num_heads=2, width=8, context=8)
    config.task = section("task", "language_modeling", path=str(path), context=8, batch_size=4)
    config.optimizer, config.mesh = section("optimizer", warmup="10%"), section("mesh")
    config.train = section("train", duration="6 steps")
    return config


def test_shapes_are_counted_and_nothing_is_compiled(config, caplog, capsys):
    with logged_compilations(caplog):
        report = dry_run.plan(config)
    assert not [line for line in caplog.messages if "XLA compilation" in line and "steps" in line]
    assert set(report["memory"]) == {"parameters", "optimizer"}
    assert report["flops_per_step"] > 0
    dry_run.show(report)
    shown = capsys.readouterr().out
    assert re.search(r"^memory, parameters +0\.0 MiB$", shown, re.MULTILINE)
    assert "--compile" in shown


def test_a_compiled_step_says_what_memory_it_takes(config, capsys):
    report = dry_run.plan(config, compiles=True)
    memory = report["memory"]
    assert set(memory) == {"parameters", "optimizer", "temporary", "total"}
    assert memory["total"] > memory["parameters"] + memory["optimizer"]
    dry_run.show(report)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("memory, ")]
    assert len(lines) == 4
    assert all(re.fullmatch(r"memory, \w+ +[\d,]+\.\d MiB", line) for line in lines), lines
