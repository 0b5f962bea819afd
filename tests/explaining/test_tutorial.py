"""docs/previous_token_head.md does what it says, here with a smaller model and fewer steps."""

import functools
import re
import shlex

import numpy as np
import pytest

from tests.end_to_end.conftest import ROOT, call
from transformer.data.embedded import plays
from transformer.explaining.server import Explainer

PAGE = (ROOT / "docs" / "previous_token_head.md").read_text("utf-8")
SMALLER = [
    "--config.model.num_layers=1",
    "--config.model.num_heads=2",
    "--config.model.width=64",
    "--config.model.context=16",
    "--config.task.batch_size=32",
    "--config.task.validation_batch_size=2048",
    "--config.task.sample_length=3",
    "--config.train.duration=600 steps",
    "--config.train.evaluate_every=600 steps",
    "--config.train.save_every=600 steps",
    "--config.train.steps_per_dispatch=100",
    "--config.train.validation_batches=1",
    "--config.train.tensorboard=False",
    "--config.optimizer.learning_rate=1e-2",
    "--config.optimizer.warmup=20 steps",
]


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """What the blocks of the page have left behind, in the order of the page."""
    folder = tmp_path_factory.mktemp("tutorial")
    with pytest.MonkeyPatch.context() as patch:
        train, explain, serve = (shlex.split(block) for block in blocks("bash"))
        assert (train[1], explain[1]) == ("scripts/train.py", "scripts/explain.py")
        assert serve[:-1] == explain[:-1] and serve[-1] == "--serve"
        train[2] = f"--config={ROOT / 'configs' / 'gpt_char.py'}"
        patch.chdir(folder)
        # The plays are read by the training and by the page.
        once = functools.cache(plays.plain_play)
        patch.setattr("transformer.data.embedded.texts.plays.plain_play", once)
        for script, *flags in (train[1:] + SMALLER, explain[1:]):
            answer = call(script.removeprefix("scripts/"), *flags)
            assert answer.returncode == 0, answer.stderr
        names = {}
        for block in blocks("python"):
            exec(block, names)
    return folder, names


def test_the_page_is_written(done):
    folder, _ = done
    assert (folder / "page.html").stat().st_size > 100_000


def test_a_head_looks_at_the_token_before(done):
    names = done[1]
    scores = names["scores"]
    assert scores[names["layer"], names["head"]] == scores.max()
    # Attention that is spread evenly gives this much to the token before.
    even = np.mean(1 / np.arange(2, names["length"] + 1))
    assert scores.max() > 1.3 * even


def test_without_it_the_loss_rises(done):
    names = done[1]
    assert names["without"] > names["clean"] + 0.2


def test_the_served_page_shows_the_same(done, monkeypatch):
    folder, names = done
    monkeypatch.chdir(folder)
    explainer = Explainer([names["run"]], "", names["passages"][0])
    request = {"ablate": [{"layer": names["layer"], "head": names["head"]}]}
    answer = explainer.answer({"prompt": names["passages"][0]} | request)
    clean, off = answer["header"]["traces"]
    assert clean["loss"] == pytest.approx(names["traces"][0].loss, abs=1e-4)
    assert off["loss"] != clean["loss"]
