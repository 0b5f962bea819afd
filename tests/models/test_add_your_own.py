"""An architecture of your own is one new file: it builds, writes, scans and trains."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from tests.common import noisy_parameters
from tests.models import examples
from transformer import models
from transformer.nn.compute import computing
from transformer.nn.layouts import stacked
from transformer.training.loop import train
from transformer.training.sections import build, owner, section

SIZES = {"num_layers": 4, "num_heads": 2, "width": 16, "context": 12, "vocab_size": 11}


@pytest.fixture
def found(monkeypatch):
    monkeypatch.setattr(models, "__path__", [*models.__path__, *examples.__path__])
    owner.cache_clear()
    yield
    owner.cache_clear()


@pytest.fixture
def model(found):
    return build("model", section("model", "rotary_alibi", **SIZES))


@pytest.fixture
def tokens():
    return jnp.asarray(np.random.default_rng(0).integers(0, 11, (2, 9)))


def test_cached_is_full_and_scanned_is_unrolled(model, tokens):
    params = noisy_parameters(model, tokens)
    apply = jax.jit(model.apply)
    whole, _ = apply({"params": params}, tokens)
    cache, parts = model.empty_cache(2, 12), []
    for step in range(tokens.shape[1]):
        positions = jnp.full((2, 1), step)
        logits, cache = apply(
            {"params": params}, tokens[:, step : step + 1], positions=positions, cache=cache
        )
        parts.append(logits)
    np.testing.assert_allclose(jnp.concatenate(parts, 1), whole, atol=1e-5)
    scanned = computing(model, scan_layers=True)
    shapes = jax.eval_shape(scanned.init, jax.random.key(0), tokens)["params"]
    assert set(shapes["blocks"]["layers"]) == {"turn_0", "turn_1"}
    found, _ = jax.jit(scanned.apply)({"params": stacked(params, turns=2)}, tokens)
    np.testing.assert_allclose(found, whole, atol=1e-5)


def test_it_trains(found, tmp_path):
    (tmp_path / "text.txt").write_text("the cat sat on the mat. " * 40)
    config = ConfigDict({name: section(name) for name in ("optimizer", "train", "mesh")})
    config.model = section(
        "model", "rotary_alibi", **{**SIZES, "num_layers": 2, "vocab_size": None}
    )
    config.task = section(
        "task",
        "language_modeling",
        path=str(tmp_path / "text.txt"),
        context=12,
        batch_size=2,
        sample_length=3,
    )
    config.train.update({"duration": "4 steps", "tensorboard": False})
    config.optimizer.warmup = "1 steps"
    code, report = train(config, tmp_path / "run", curves=False)
    assert (code, report["step"]) == (0, 4)
