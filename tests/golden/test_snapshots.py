"""A config says tomorrow what it says today."""

import pytest

from tests.golden.snapshots import FOLDER, config_of, file_of, names, parameters, values

HOW = "python -m tests.golden.snapshots, and look at the diff"


def written(name):
    """Lines of values, and lines of parameters."""
    return [part.splitlines() for part in file_of(name).read_text("utf-8").split("\n\n")]


@pytest.mark.parametrize("name", names())
def test_a_config_has_the_values_it_had(name):
    assert values(config_of(name)) == written(name)[0], HOW


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", names())
def test_a_model_has_the_parameters_it_had(name):
    assert parameters(config_of(name)) == written(name)[1], HOW


def test_every_snapshot_is_of_a_config():
    assert set(FOLDER.glob("*.txt")) == {file_of(name) for name in names()}
