import numpy as np
import pytest
from ml_collections import ConfigDict

from transformer.errors import ConfigError
from transformer.sweeps.trials import (
    check_trials,
    make_trial,
    make_trials,
    parsed_grid,
)
from transformer.training.sections import section
from transformer.training.shared import Shared


def test_ids_are_of_what_a_trial_is(config):
    one = make_trial(config, {"optimizer.learning_rate": 1.0, "train.seed": 1})
    again = make_trial(config, {"train.seed": 1, "optimizer.learning_rate": 1})
    assert one.id == again.id
    assert len(one.id) == 10
    assert int(one.id, 16) >= 0
    # What is said in the config and what is overridden are one.
    config.train.seed = 1
    assert make_trial(config, {"config.optimizer.learning_rate": np.float64(1)}).id == one.id
    others = [{}, {"optimizer.learning_rate": 1.5}, {"train.seed": 2}, {"train.duration": "9"}]
    ids = {make_trial(config, overrides).id for overrides in others}
    assert len(ids | {one.id}) == 5


def test_how_often_something_is_written_makes_no_other_trial(config):
    trial = make_trial(config, {})
    config.train.save_every = "1"
    assert make_trial(config, {}).id == trial.id
    # Unless somebody sweeps it.
    assert make_trial(config, {"train.save_every": "2"}).id != trial.id


def test_references_follow_and_the_config_stays(config):
    trial = make_trial(config, {"model.context": 4})
    assert trial.config.task.context == 4
    assert config.task.context == 8


def test_equal_trials_are_one(config):
    sweep = [{"train.seed": 0}, {"train.seed": 1}, {}, {"train.seed": 1}]
    assert [trial.overrides for trial in make_trials(config, sweep)] == sweep[:2]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"optimizer.learning_rat": 1.0}, r'config\.optimizer has no.*"learning_rate"'),
        ({"optimiser.beta1": 0.5}, r'config has no "optimiser": did you mean "optimizer"'),
        ({"optimizer": 0.5}, r'config\.optimizer has no ""'),
        ({"optimizer.beta1": "0.9"}, r"beta1 is '0\.9' \(str\): expected float"),
        ({"train.seed": 1.0}, r"train\.seed is 1\.0 \(float\): expected int"),
        ({"model.name": "bert"}, r'config\.model has no "name"'),
    ],
    ids=str,
)
def test_overrides_that_do_not_fit_name_the_trial(config, overrides, message):
    with pytest.raises(ConfigError, match=r"trial 2 \(\S+=.*\): .*" + message):
        make_trials(config, [{}, overrides])


def test_sweeps_that_yield_something_else_or_nothing(config):
    with pytest.raises(ConfigError, match="number 1 of this one is 3"):
        make_trials(config, [3])
    with pytest.raises(ConfigError, match="no trials"):
        make_trials(config, [])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model.num_heads": 3}, "num_heads"),
        ({"optimizer.beta1": 1.0}, r"config\.optimizer\.beta1"),
        ({"train.microbatches": 3}, r"batches of 4 rows"),
        ({"train.duration": "soon"}, r"train\.duration is 'soon'"),
        ({"optimizer.warmup": "soon"}, r"optimizer\.warmup is 'soon'"),
        ({"train.save_every": "soon"}, r"train\.save_every is 'soon'"),
        ({"model.vocab_size": 5}, "smaller than the 28"),
    ],
    ids=str,
)
def test_what_cannot_work_is_found_before_the_first_trial(config, overrides, message):
    trials = make_trials(config, [{"train.seed": 1}, overrides])
    with pytest.raises(ConfigError, match=rf"trial 2 \(.*\): .*{message}"):
        check_trials(trials, Shared())


def test_plans(config):
    sweep = [{}, {"optimizer.learning_rate": 1.0}, {"train.duration": "9"}, {"model.width": 16}]
    plans = check_trials(make_trials(config, sweep), Shared())
    assert [plan.total_steps for plan in plans] == [6, 6, 9, 6]
    first, *others = (plan.program for plan in plans)
    assert [program == first for program in others] == [True, True, False]
    assert plans[3].size[0] > plans[0].size[0] > 3 * 4 * plans[0].size[1]


def test_grids_of_the_command_line(config):
    texts = [
        "optimizer.learning_rate=1,2e-3",
        "model.compute.scan_layers=true,False",
        "task.stop=a,",
    ]
    assert parsed_grid(config, texts) == [
        [{"optimizer.learning_rate": 1.0}, {"optimizer.learning_rate": 0.002}],
        [{"model.compute.scan_layers": True}, {"model.compute.scan_layers": False}],
        [{"task.stop": "a"}, {"task.stop": ""}],
    ]
    assert parsed_grid(config, ["config.train.validation_batches=none,3"]) == [
        [{"train.validation_batches": None}, {"train.validation_batches": 3}]
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimizer.learning_rate", "write KEY=VALUE,VALUE"),
        ("optimizer.learning_rate=", "write KEY=VALUE,VALUE"),
        ("optimizer.learning_rate=1e-3,fast", "cannot be 'fast': expected float"),
        ("train.seed=0.5", "cannot be '0.5': expected int"),
        ("model.compute.scan_layers=yes", "cannot be 'yes': expected bool"),
        ("model.widht=3", 'did you mean "width"'),
    ],
)
def test_grids_that_are_none(config, text, message):
    with pytest.raises(ConfigError, match=message):
        parsed_grid(config, [text])


def test_a_section_inside_of_one():
    base = ConfigDict(
        {
            "model": section("model", "vaswani"),
            "task": section("task", "translation"),
            **{name: section(name) for name in ("optimizer", "train", "mesh")},
        }
    )
    one = make_trial(base, {"optimizer.learning_rate": 1.0})
    base.task.search.min_new_tokens = 3
    assert make_trial(base, {"optimizer.learning_rate": 1.0}).id != one.id
    inner = make_trial(base, {"task.search.kind": "transformers"})
    assert inner.config.task.search.kind == "transformers"
    assert inner.config.task.search.min_new_tokens == 3
    assert base.task.search.kind == "wu"
    with pytest.raises(ConfigError, match=r"task\.search is a section.*search\.kind"):
        make_trial(base, {"task.search": "transformers"})
    with pytest.raises(ConfigError, match=r'config\.task has no "search\.kin".*search\.kind'):
        make_trial(base, {"task.search.kin": "transformers"})
