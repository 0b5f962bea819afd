import sys

import pytest

from tests.sweeps.conftest import tiny_config
from transformer.errors import ConfigError, MissingDependencyError, WorkdirError
from transformer.sweeps import runner
from transformer.sweeps import search as searches
from transformer.sweeps.folder import Folder
from transformer.sweeps.search import (
    Dimension,
    Search,
    check_space,
    imported_optuna,
    open_storage,
    open_study,
    parsed_space,
    run_search,
)
from transformer.training.shared import Shared

SPACE = ["optimizer.learning_rate=log(1e-4,1e-1)", "train.seed=choice(0,1)"]


@pytest.fixture(scope="module")
def base(text_path):
    return tiny_config(text_path)


@pytest.fixture(scope="module")
def shared():
    return Shared()


def states(folder):
    optuna = imported_optuna()
    study = open_study(optuna, folder.path, open_storage(optuna, folder.path))
    return [trial.state.name for trial in study.get_trials()]


def search(base, folder, shared, trials, **options):
    options = {"sampler": "random", "pruner": "none", **options}
    said = []
    plan = Search(trials, parsed_space(base, SPACE), **options)
    return run_search(base, plan, folder, shared, said.append, str), said


@pytest.fixture(scope="module")
def searched(base, shared, tmp_path_factory):
    folder = Folder(tmp_path_factory.mktemp("search"))
    code, said = search(base, folder, shared, 3)
    assert code == 0
    return folder, said


def test_a_space(base):
    found = parsed_space(base, [*SPACE, "model.num_layers=uniform(1,4)"])
    assert found == [
        Dimension("optimizer.learning_rate", "log", (1e-4, 1e-1)),
        Dimension("train.seed", "choice", (0, 1)),
        Dimension("model.num_layers", "uniform", (1, 4)),
    ]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "what is to be searched"),
        (["optimizer.learning_rate=1,2"], "write KEY=log"),
        (["optimizer.learning_rate=log(1e-4)"], "a lower and a higher number"),
        (["optimizer.learning_rate=uniform(2,1)"], "a lower and a higher number"),
        (["optimizer.schedule=uniform(linear,cosine)"], "a lower and a higher number"),
        (["optimizer.learning_rate=log(0,1)"], "numbers above 0"),
        (["optimizer.learning_rate=log(a,b)"], "cannot be 'a': expected float"),
        (["optimizer.rate=log(1,2)"], '--space=optimizer.rate.*config.optimizer has no "rate"'),
        (["a=choice()"], r'--space=a=choice\(\): config has no "a"'),
        ([SPACE[0], SPACE[0]], "twice"),
    ],
    ids=str,
)
def test_spaces_that_are_none(base, texts, message):
    with pytest.raises(ConfigError, match=message):
        parsed_space(base, texts)


def test_the_ends_of_a_space_are_checked_first(base, shared):
    space = parsed_space(base, ["optimizer.beta1=uniform(0.5,1)"])
    with pytest.raises(ConfigError, match=r"\(optimizer\.beta1=1\.0\).*below 1"):
        check_space(base, space, shared)


def test_a_study_has_as_many_trials_as_asked_for(base, shared, searched):
    folder, said = searched
    assert states(folder) == ["COMPLETE"] * 3
    statuses = folder.statuses()
    assert [status["status"] for status in statuses] == ["done"] * 3
    assert len({str(status["overrides"]) for status in statuses}) == 3
    assert [line.split(",")[0] for line in said] == ["trial 1", "trial 2", "trial 3"]
    # As many are there.
    assert search(base, folder, shared, 3) == (0, [])


def test_suggestions_depend_on_seed_and_number_only(base, shared, searched, monkeypatch, tmp_path):
    tried = []

    def note(trial, folder, *rest):
        tried.append(trial.id)
        folder.begin(trial, "")
        folder.note(trial, "done", validation_loss=1.0)
        return 0

    monkeypatch.setattr(searches, "run_trial", note)
    for trials in (1, 3):
        search(base, Folder(tmp_path), shared, trials)
    assert sorted(tried) == [status["id"] for status in searched[0].statuses()]


def test_what_a_killed_worker_was_at_is_trained_by_the_next(base, shared, tmp_path, monkeypatch):
    folder = Folder(tmp_path)
    monkeypatch.setattr(searches, "run_trial", lambda *arguments: 143)
    assert search(base, folder, shared, 2)[0] == 143
    assert states(folder) == ["RUNNING"]
    monkeypatch.undo()
    code, said = search(base, folder, shared, 2)
    assert code == 0
    assert [line.split(",")[0] for line in said] == ["trial 1", "trial 2"]
    assert states(folder) == ["COMPLETE"] * 2


def test_trials_that_fall_behind_are_stopped(base, shared, tmp_path, monkeypatch):
    optuna = imported_optuna()
    asked = []

    def prune(pruner, study, trial):
        asked.append(list(trial.intermediate_values))
        return trial.number == 1

    monkeypatch.setattr(optuna.pruners.HyperbandPruner, "prune", prune)
    folder = Folder(tmp_path)
    search(base, folder, shared, 2, pruner="hyperband", sampler="tpe")
    assert states(folder) == ["COMPLETE", "PRUNED"]
    found = {(status["status"], status["step"]) for status in folder.statuses()}
    assert found == {("done", 6), ("pruned", 3)}
    assert asked == [[3], [3, 6], [3]]


def test_failed_trials_count(base, shared, tmp_path):
    space = parsed_space(base, ["optimizer.learning_rate=choice(1e30)"])
    folder = Folder(tmp_path)
    said = []
    code = run_search(base, Search(1, space), folder, shared, said.append, str)
    assert (code, states(folder)) == (0, ["FAIL"])
    assert folder.statuses()[0]["status"] == "failed"


def test_a_loss_that_is_not_finite_is_a_failure(base, shared, tmp_path, monkeypatch):
    def diverge(config, workdir, *, should_stop, **options):
        assert not should_stop(3, float("nan"))
        return 0, {"step": 6, "validation": {"loss": float("inf")}}

    monkeypatch.setattr(runner, "train", diverge)
    folder = Folder(tmp_path)
    _, said = search(base, folder, shared, 1, pruner="hyperband")
    assert states(folder) == ["FAIL"]
    (status,) = folder.statuses()
    assert (status["status"], status["error"]) == (
        "failed",
        "the validation loss of step 6 is inf",
    )
    assert status["error"] in said[-1]


def test_combinations_that_cannot_work_fail_alone(base, shared, tmp_path):
    """Each choice works with the config as it is; not all of them do together."""
    space = parsed_space(base, ["model.num_heads=choice(4)", "model.width=choice(10)"])
    folder = Folder(tmp_path)
    assert run_search(base, Search(1, space), folder, shared, [].append, str) == 0
    (status,) = folder.statuses()
    assert status["status"] == "failed"
    assert "num_heads" in status["error"]


def test_another_config_in_the_folder(base, shared, searched):
    other = base.copy_and_resolve_references()
    other.model.width = 16
    with pytest.raises(WorkdirError, match="holds a search with another config"):
        search(other, searched[0], shared, 5)


def test_a_storage_that_cannot_be_opened(base, shared, tmp_path):
    with pytest.raises(WorkdirError, match="cannot be opened"):
        search(base, Folder(tmp_path), shared, 1, storage="nosuch://x")


def test_without_optuna(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingDependencyError, match=r"pip install -e '\.\[sweep\]'"):
        imported_optuna()
