"""A clock that jumps, as that of a laptop that has slept, ends no save."""

import itertools
import time
from unittest import mock

import jax.numpy as jnp
import pytest

from tests.common import assert_trees_equal
from transformer.training.checkpoints import Checkpoints

DAY = 86400.0


@pytest.mark.parametrize("jump", [DAY, -DAY, 365 * DAY])
def test_a_save_ends_whatever_the_clock_says(tmp_path, jump):
    """Each look at the clock finds it a day, or a year, further on."""
    state, real, looks = {"params": {"w": jnp.arange(6.0)}}, time.time, itertools.count()
    with (
        mock.patch("time.time", lambda: real() + jump * next(looks)),
        Checkpoints(tmp_path) as checkpoints,
    ):
        for step in (1, 2):
            checkpoints.save(step, state, data={}, metadata={}, validation_loss=None)
        checkpoints.wait()
        assert_trees_equal(checkpoints.restore(2, state).state, state)
    assert next(looks) > 5
