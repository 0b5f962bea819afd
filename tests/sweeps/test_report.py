import csv
import json

import numpy as np
import pytest

from transformer.errors import WorkdirError
from transformer.sweeps.folder import Folder
from transformer.sweeps.report import best_of, collect, counted, order_with_loss
from transformer.sweeps.sweep import finish
from transformer.sweeps.trials import make_trial

OUTCOMES = [
    ("done", 2.5, {"optimizer.learning_rate": 1e-4, "optimizer.schedule": "linear"}),
    ("done", 1.5, {"optimizer.learning_rate": 1e-2, "optimizer.schedule": "cosine"}),
    ("done", 2.0, {"optimizer.learning_rate": 1e-3}),
    ("pruned", 1.0, {"optimizer.learning_rate": 1e-1}),
    ("failed", None, {"optimizer.learning_rate": 1e2}),
]


@pytest.fixture
def folder(tmp_path, config):
    """Trials of which somebody noted that they have ended."""
    folder = Folder(tmp_path / "sweep <1>")
    for status, loss, overrides in OUTCOMES:
        trial = make_trial(config, overrides)
        workdir = folder.begin(trial, f"train {loss}")
        error = "it <broke>\nbadly" if status == "failed" else None
        facts = {"validation_loss": loss, "error": error, "step": 8}
        folder.note(trial, status, **facts, scores={"bleu": 3.0} if loss == 1.5 else None)
        lines = [
            {"step": step, "split": split, "loss": (loss or 1e9) + 1 / step}
            for step in (4, 8)
            for split in ("train", "validation")
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (workdir / "metrics.jsonl").write_text(text)
    return folder


def test_the_best_is_the_best_of_those_that_ended(folder):
    rows = collect(folder)
    losses = [row.get("validation_loss") for row in rows]
    assert losses == [1.5, 2.0, 2.5, 1.0, None]
    assert best_of(rows)["overrides"]["optimizer.learning_rate"] == 1e-2
    assert best_of(rows[3:]) is None
    assert counted(rows) == "5 trials: 3 done, 1 pruned, 1 failed."


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_never_the_best(folder, config, loss):
    """Also where an earlier version noted that it is done."""
    trial = make_trial(config, {"train.seed": 8})
    folder.begin(trial, "train")
    folder.note(trial, "done", validation_loss=loss, step=8)
    result = finish(folder.path)
    assert result["best"]["validation_loss"] == 1.5
    assert result["failed"] == 2
    row = next(row for row in result["trials"] if row["id"] == trial.id)
    assert row["error"] == f"the validation loss is {loss}"
    json.dumps(result, allow_nan=False)


def test_a_report(folder):
    result = finish(folder.path)
    assert (result["failed"], result["best"]["command"]) == (1, "train 1.5")
    with (folder.path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["done"] * 3 + ["pruned", "failed"]
    assert rows[0]["optimizer.schedule"] == "cosine"
    assert (rows[0]["bleu"], rows[1]["bleu"]) == ("3.0", "")
    assert (folder.path / "report.png").read_bytes().startswith(b"\x89PNG")
    page = (folder.path / "report.html").read_text()
    assert 'src="data:image/png;base64,iVBOR' in page
    assert "<pre>train 1.5</pre>" in page
    assert "sweep &lt;1&gt;" in page
    assert "it &lt;broke&gt;" in page
    assert "://" not in page
    assert not list(folder.path.glob("*.part"))


def test_a_report_of_what_has_only_failed(tmp_path, config):
    folder = Folder(tmp_path / "sweep")
    trial = make_trial(config, {"train.seed": 1})
    folder.begin(trial, "train")
    folder.note(trial, "failed", error="no")
    assert finish(folder.path)["best"] is None
    assert (folder.path / "report.png").exists()


def test_a_folder_of_something_else(tmp_path):
    with pytest.raises(WorkdirError, match="holds no trials"):
        finish(tmp_path)


def test_rank_correlation():
    """Against Pearson's of the ranks, ties sharing theirs."""
    rows = [
        {"overrides": {"a": a}, "validation_loss": loss}
        for a, loss in [(1, 5.0), (10, 4.0), (100, 4.0), (1000, 1.0), (10000, 2.0)]
    ]
    expected = -np.corrcoef([0, 1, 2, 3, 4], [4, 2.5, 2.5, 0, 1])[0, 1]
    np.testing.assert_allclose(order_with_loss(rows, "a"), expected)
    assert order_with_loss(rows[:2], "a") == 0.0
    assert order_with_loss([{**row, "overrides": {"a": "x"}} for row in rows], "a") == 0.0
    assert order_with_loss([{**row, "overrides": {"a": 1}} for row in rows], "a") == 0.0
