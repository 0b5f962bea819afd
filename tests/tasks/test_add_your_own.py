"""A task of your own is one new file: it is found, checked, trained and evaluated."""

import pytest
from ml_collections import ConfigDict

from tests.tasks import examples
from transformer import tasks
from transformer.errors import ConfigError
from transformer.runs.evaluating import evaluate_run
from transformer.runs.opening import open_run
from transformer.tasks.parts.protocol import Dataset, Task
from transformer.training.loop import train
from transformer.training.sections import build, owner, section


@pytest.fixture(autouse=True)
def found(monkeypatch):
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, *examples.__path__])
    owner.cache_clear()
    yield
    owner.cache_clear()


def test_it_keeps_the_protocols():
    task = build("task", section("task", "counting", batch_size=3))
    data = task.load(None)
    assert isinstance(task, Task) and isinstance(data, Dataset)
    assert task.rows.batch_size == 3 and task.modulus == 11


def test_its_fields_are_checked():
    with pytest.raises(ConfigError, match='"batch_size"'):
        section("task", "counting", bacth_size=3)
    with pytest.raises(ConfigError, match=r"config\.task\.batch_size is 0"):
        build("task", section("task", "counting", batch_size=0))


def test_it_trains_and_is_evaluated(tmp_path):
    config = ConfigDict({name: section(name) for name in ("optimizer", "train", "mesh")})
    config.model = section("model", "gpt", num_layers=1, num_heads=2, width=16, context=8)
    config.task = section("task", "counting", batch_size=11)
    config.train.update({"duration": "60 epochs", "tensorboard": False})
    config.optimizer.update({"warmup": "1 steps", "learning_rate": 0.01})
    code, report = train(config, tmp_path / "run", curves=False)
    assert (code, report["step"]) == (0, 60)
    run = open_run(tmp_path / "run", "last")
    found = evaluate_run(run, run.task.load(None))
    assert found["accuracy"] == 1.0
