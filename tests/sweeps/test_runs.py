"""Trials of a grid: each ends as it would alone, however many train at once."""

import json
import signal
import subprocess
from unittest import mock

import numpy as np
import pytest

from tests.common import assert_trees_close, logged_compilations
from tests.runs import assert_same_run, logged, saved
from tests.sweeps.conftest import tiny_config
from transformer.errors import ConfigError
from transformer.sweeps import population, runner, sweep
from transformer.sweeps.folder import Folder
from transformer.sweeps.population import run_population
from transformer.sweeps.runner import run_grid
from transformer.sweeps.sweep import finish
from transformer.sweeps.trials import check_trials, make_trials
from transformer.training.execution import Execution
from transformer.training.loop import train
from transformer.training.metrics import MetricsWriter, read_metrics
from transformer.training.opened import Opened
from transformer.training.shared import Shared


@pytest.fixture(scope="module")
def base(text_path):
    config = tiny_config(text_path)
    config.model.dropout_rate = 0.1
    return config


@pytest.fixture(scope="module")
def trials(base):
    """Two that differ in all numbers, and one that blows up in its second step."""
    overrides = [
        {"optimizer.learning_rate": 1e-2, "train.seed": 1, "model.dropout_rate": 0.2},
        {"optimizer.learning_rate": 3e-3, "optimizer.weight_decay": 0.5, "optimizer.beta2": 0.9},
        {"optimizer.learning_rate": 1e30},
    ]
    return make_trials(base, overrides)


@pytest.fixture(scope="module")
def shared():
    return Shared()


@pytest.fixture(scope="module")
def alone(trials, tmp_path_factory):
    """The run folders of the first two, trained as `scripts/train.py` does."""
    folder = tmp_path_factory.mktemp("alone")
    for trial in trials[:2]:
        assert train(trial.config, folder / trial.id, curves=False)[0] == 0
    return folder


def command(trial):
    return f"train {trial}"


def run(trials, folder, shared, vectorize="none", limit=16):
    said = []
    if vectorize == "none":
        return run_grid(trials, folder, shared, said.append, command), said
    plans = check_trials(trials, shared)
    code = run_population(
        trials, plans, folder, shared, said.append, command, vectorize=vectorize, limit=limit
    )
    return code, said


def interrupted_after(step):
    """In here the process gets a SIGINT when the first run logs this step."""
    write, left = MetricsWriter.write, [step]

    def write_and_interrupt(writer, at, split, scalars):
        write(writer, at, split, scalars)
        if split == "train" and left == [at]:
            left.clear()
            signal.raise_signal(signal.SIGINT)

    return mock.patch.object(MetricsWriter, "write", write_and_interrupt)


@pytest.mark.parametrize("vectorize", ["none", "scan", "vmap"])
def test_each_trial_ends_as_it_would_alone(trials, shared, alone, tmp_path, caplog, vectorize):
    folder = Folder(tmp_path)
    with logged_compilations(caplog):
        code, _ = run(trials, folder, shared, vectorize)
    assert code == 0
    compiled = [line for line in caplog.messages if line.startswith("Finished XLA compilation")]
    steps = [line for line in compiled if "steps)" in line]
    assert len(steps) == 1, compiled
    for trial in trials[:2]:
        ours, theirs = folder.run(trial.id), alone / trial.id
        status = folder.status(trial.id)
        assert (status["status"], status["step"]) == ("done", 6)
        assert status["command"] == command(trial)
        if vectorize == "vmap":
            assert_close(ours, theirs)
        else:
            assert_same_run(ours, theirs)
        assert status["validation_loss"] == read_metrics(ours)[-1]["loss"]
    failed = folder.status(trials[2].id)
    assert failed["status"] == "failed"
    assert "training cannot go on" in failed["error"]
    assert "Gradient norms" in (folder.run(trials[2].id) / "error.txt").read_text()
    # A second time nothing is done.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("trials/*/*")}
    assert run(trials, folder, shared, vectorize)[0] == 0
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("trials/*/*")}


@pytest.mark.parametrize("vectorize", ["none", "scan"])
def test_a_loss_that_is_not_finite_is_a_failure(base, shared, tmp_path, vectorize):
    """Its only training loss is finite; the update after it is not."""
    overrides = [
        {"train.duration": "1", "optimizer.learning_rate": 1e30},
        {"train.duration": "1"},
        # As many as above, so that their program is compiled already.
        {"train.duration": "1", "optimizer.learning_rate": 1e-30},
    ]
    folder, trials = Folder(tmp_path), make_trials(base, overrides)
    code, said = run(trials, folder, shared, vectorize)
    assert code == 0
    failed, *others = (folder.status(trial.id) for trial in trials)
    assert failed["status"] == "failed"
    assert [other["status"] for other in others] == ["done", "done"]
    assert "the validation loss of step 1 is nan" in failed["error"]
    assert any("the validation loss of step 1 is nan" in line for line in said)
    result = finish(tmp_path)
    assert (result["best"]["id"], result["failed"]) == (trials[1].id, 1)
    json.dumps(result, allow_nan=False)
    assert "the validation loss of step 1 is nan" in (tmp_path / "report.html").read_text()


def assert_close(ours, theirs):
    """Up to the order in which sums are taken."""
    for one, other in zip(logged(ours), logged(theirs), strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            if name != "split":
                np.testing.assert_allclose(value, other[name], rtol=1e-4, err_msg=name)
    assert_trees_close(saved(ours)["params"], saved(theirs)["params"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("vectorize", ["none", "scan"])
def test_what_was_cut_off_goes_on(trials, shared, alone, tmp_path, vectorize):
    folder, trials = Folder(tmp_path), trials[:2]
    with interrupted_after(3):
        code, _ = run(trials, folder, shared, vectorize, limit=1)
    assert code == 130
    stopped = [folder.status(trial.id) for trial in trials]
    assert [status and status["status"] for status in stopped] == ["stopped", None]
    code, said = run(trials, folder, shared, vectorize, limit=1)
    assert code == 0
    if vectorize == "scan":
        assert "1 trials from step 4, by scan:" in said
    for trial in trials:
        assert folder.status(trial.id)["status"] == "done"
        assert_same_run(folder.run(trial.id), alone / trial.id)


def test_trials_that_were_cut_off_at_different_steps_go_on_apart(trials, shared, alone, tmp_path):
    """One by the loop, as if it had been trained alone so far."""
    folder, trials = Folder(tmp_path), trials[:2]
    with interrupted_after(3):
        run(trials[:1], folder, shared)
    code, said = run(trials, folder, shared, "scan", limit=2)
    assert code == 0
    assert [line for line in said if "from step" in line] == [
        "1 trials from step 0, by scan:",
        "1 trials from step 4, by scan:",
    ]
    for trial in trials:
        assert_same_run(folder.run(trial.id), alone / trial.id)


def test_trials_of_other_workers_are_waited_for(trials, shared, tmp_path, monkeypatch):
    folder, (trial, _, _) = Folder(tmp_path), trials
    other = folder.claim(trial.id)
    other.__enter__()

    def end(seconds):
        folder.begin(trial, "")
        folder.note(trial, "done")
        other.__exit__(None, None, None)

    monkeypatch.setattr(runner.time, "sleep", end)
    code, said = run([trial], folder, shared)
    assert (code, said) == (0, ["Waiting for 1 trials that other workers train."])


def test_an_unexpected_error_is_noted_and_the_others_go_on(trials, shared, tmp_path, monkeypatch):
    folder = Folder(tmp_path)

    def train(config, workdir, **options):
        if config.train.seed == 1:
            raise ZeroDivisionError("of something")
        return 0, {"step": 6, "validation": {"loss": 1.0}, "final": {"step": 6, "bleu": 2.0}}

    monkeypatch.setattr(runner, "train", train)
    code, _ = run(trials[:2], folder, shared)
    first, second = (folder.status(trial.id) for trial in trials[:2])
    assert (code, first["status"]) == (0, "failed")
    assert first["error"] == "ZeroDivisionError: of something"
    assert "Traceback" in (folder.run(trials[0].id) / "error.txt").read_text()
    assert (second["status"], second["scores"]) == ("done", {"bleu": 2.0})
    assert json.loads((folder.run(trials[1].id) / "status.json").read_text()) == second


def test_what_can_be_advanced_in_step_is_trained_together(base, shared, tmp_path, monkeypatch):
    """The same program, length and pace, and no more at once than there is room for."""
    groups = []

    def note(mine, *rest):
        groups.append([str(trial) for trial in mine])
        return 0, []

    monkeypatch.setattr(population, "_run_group", note)
    overrides = [
        *({"train.seed": seed} for seed in range(3)),
        {"model.width": 16},
        {"train.duration": "12"},
        {"train.duration": "6"},
        {"train.evaluate_every": "2"},
    ]
    assert run(make_trials(base, overrides), Folder(tmp_path), shared, "vmap", limit=3)[0] == 0
    assert groups == [
        ["seed=0", "seed=1", "seed=2"],
        ["duration=6"],
        ["width=16"],
        ["duration=12"],
        ["evaluate_every=2"],
    ]


def test_batches_of_different_shapes_are_refused():
    run = mock.Mock(spec=Opened, feeder=mock.Mock())
    run.feeder.take.side_effect = [({"x": np.zeros((1, 2))}, 1), ({"x": np.zeros((1, 3))}, 1)]
    with pytest.raises(ConfigError, match="use --vectorize=none"):
        Execution.take(mock.Mock(spec=Execution), [run, run], 1)


def test_a_signal_that_comes_while_a_worker_is_begun_reaches_it(monkeypatch):
    def begun(line, process_group):
        process = begin(line, process_group=process_group)
        signal.raise_signal(signal.SIGTERM)
        return process

    begin = subprocess.Popen
    monkeypatch.setattr(sweep.subprocess, "Popen", begun)
    assert sweep.in_processes(["-c", "import time; time.sleep(60)"], 2) == 128 + signal.SIGTERM
