import pytest
from ml_collections import ConfigDict

from transformer.training.sections import section

TEXT = "the quick brown fox jumps over the lazy dog\n" * 20


@pytest.fixture(scope="session")
def text_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("sweeps") / "text.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture
def config(tmp_path, text_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tiny_config(text_path)


def tiny_config(text_path):
    """A run of six steps that takes a second."""
    config = ConfigDict()
    config.model = section("model", "gpt", num_layers=1, num_heads=2, width=8, context=8)
    config.task = section(
        "task", "language_modeling", path=str(text_path), batch_size=4, sample_length=4
    )
    # As configs have it: what refers to an overridden field follows it.
    config.task.context = config.model.get_ref("context")
    config.optimizer = section("optimizer", warmup="0 steps")
    config.train = section(
        "train",
        duration="6 steps",
        log_every="1",
        evaluate_every="3",
        save_every="3",
        steps_per_dispatch=2,
        tensorboard=False,
    )
    config.mesh = section("mesh")
    return config
