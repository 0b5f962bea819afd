import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformer.data import order as shuffling
from transformer.data.order import (
    epoch_generator,
    example_generator,
    host_places,
    require_divisible,
    visit,
)
from transformer.errors import ConfigError


@given(count=st.integers(1, 99), seed=st.integers(0, 2**32), epoch=st.integers(0, 1000))
def test_an_epoch_visits_every_example_once(count, seed, epoch):
    assert_visited_once(count, seed, epoch)


@pytest.mark.parametrize("epoch", [0, 2])
def test_orders_that_are_not_kept_visit_every_example_once(monkeypatch, epoch):
    monkeypatch.setattr(shuffling, "_KEPT", 1000)
    assert_visited_once(3000, 7, epoch)


def test_orders_that_are_not_kept_differ():
    starts = {tuple(visit(place, 1 << 20, seed)[1] for place in range(9)) for seed in range(4)}
    starts |= {tuple(visit((1 << 20) + i, 1 << 20, seed)[1] for i in range(9)) for seed in range(4)}
    assert len(starts) == 8


def assert_visited_once(count, seed, epoch):
    visits = [visit(epoch * count + place, count, seed) for place in range(count)]
    assert {found for found, _ in visits} == {epoch}
    assert sorted(example for _, example in visits) == list(range(count))


def test_epochs_and_seeds_have_their_own_orders():
    orders = {
        tuple(visit(epoch * 12 + place, 12, seed)[1] for place in range(12))
        for epoch in range(4)
        for seed in range(4)
    }
    assert len(orders) == 16


def test_every_example_has_its_own_numbers():
    drawn = [epoch_generator(seed, epoch).random(3) for seed in (0, 1) for epoch in (0, 1)]
    drawn += [
        example_generator(seed, epoch, example).random(3)
        for seed in (0, 1)
        for epoch in (0, 1)
        for example in (0, 1, 2)
    ]
    assert len(np.unique(np.concatenate(drawn))) == 3 * 16
    np.testing.assert_array_equal(example_generator(1, 0, 2).random(3), drawn[12])


def test_hosts_share_a_batch():
    assert [host_places(2, 6, host, 3) for host in range(3)] == [
        range(12, 14),
        range(14, 16),
        range(16, 18),
    ]


@pytest.mark.parametrize("size", [0, 4])
def test_a_batch_that_does_not_divide(size):
    require_divisible(6, 3)
    with pytest.raises(ConfigError, match=rf"batch_size \({size}\) does not divide over 3 hosts"):
        require_divisible(size, 3)
