import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformer.data import order as shuffling
from transformer.data.order import Batches, Epochs
from transformer.data.rows import RowSource
from transformer.data.source import epoch_generator, example_generator


@given(count=st.integers(1, 99), seed=st.integers(0, 2**32), epoch=st.integers(0, 1000))
def test_an_epoch_visits_every_example_once(count, seed, epoch):
    assert_visited_once(count, seed, epoch)


@pytest.mark.parametrize("epoch", [0, 2])
def test_orders_that_are_not_kept_visit_every_example_once(monkeypatch, epoch):
    monkeypatch.setattr(shuffling, "_KEPT", 1000)
    assert_visited_once(3000, 7, epoch)


def test_orders_that_are_not_kept_differ():
    starts = {tuple(examples(1 << 20, seed, epoch)) for seed in range(4) for epoch in range(2)}
    assert len(starts) == 8


def examples(count, seed, epoch, first=9):
    """What an epoch visits, from its beginning."""
    visits = Epochs(count, count, seed, epoch + 1).visits(epoch, slice(first))
    assert {(visit.seed, visit.epoch) for visit in visits} == {(seed, epoch)}
    return [visit.example for visit in visits]


def assert_visited_once(count, seed, epoch):
    assert sorted(examples(count, seed, epoch, count)) == list(range(count))


def test_epochs_and_seeds_have_their_own_orders():
    orders = {tuple(examples(12, seed, epoch, 12)) for epoch in range(4) for seed in range(4)}
    assert len(orders) == 16


def test_no_batch_comes_after_the_last():
    batches = Batches(RowSource({"x": np.arange(8)}), Epochs(8, 4, 0, 2))
    assert sorted(x for step in (0, 1) for x in batches[step]["x"]) == list(range(8))
    for step in (-1, 2):
        with pytest.raises(IndexError, match=f"are 2 batches, and none with the number {step}"):
            batches[step]


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
