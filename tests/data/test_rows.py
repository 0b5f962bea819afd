import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformer.data.order import Batches, Epochs, InOrder
from transformer.data.rows import RowSource, num_rows
from transformer.errors import ConfigError


def rows_of(count):
    return {
        "tokens": np.arange(3 * count, dtype=np.int32).reshape(count, 3),
        "lengths": np.arange(count, dtype=np.int32),
    }


def shuffled(rows, batch_size, seed, num_steps):
    return Batches(RowSource(rows), Epochs(num_rows(rows), batch_size, seed, num_steps))


def in_order(rows, batch_size):
    return Batches(RowSource(rows), InOrder(num_rows(rows), batch_size))


def joined(batches):
    parts = [batches[step] for step in range(len(batches))]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def assert_rows(batch, indices):
    """Arrays belong together, and are those of the rows with these indices."""
    np.testing.assert_array_equal(batch["lengths"], indices)
    np.testing.assert_array_equal(batch["tokens"][:, 0], 3 * np.array(indices))


def test_number_of_rows():
    assert num_rows(rows_of(7)) == 7
    assert num_rows(rows_of(0)) == 0


@given(st.integers(1, 20), st.integers(1, 7), st.integers(0, 3))
def test_every_epoch_visits_every_row_once(count, batch_size, seed):
    steps = -(-3 * count // batch_size)
    batches = shuffled(rows_of(count), batch_size, seed, steps)
    assert len(batches) == steps
    found = joined(batches)
    assert found["valid"].tolist() == [1] * (steps * batch_size)
    order = found["lengths"]
    assert_rows(found, order)
    for epoch in range(3):
        assert sorted(order[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_orders_differ_by_epoch_and_seed():
    orders = []
    for seed in (0, 1):
        order = joined(shuffled(rows_of(50), 50, seed, 2))["lengths"]
        orders += [tuple(order[:50]), tuple(order[50:])]
    assert len({*orders, tuple(range(50))}) == 5


def test_a_step_needs_none_before_it():
    one, other = (shuffled(rows_of(9), 4, 0, steps) for steps in (6, 100))
    for step in (5, 0, 3):
        np.testing.assert_array_equal(one[step]["tokens"], other[step]["tokens"])


@pytest.mark.parametrize("num_hosts", [2, 3, 6])
def test_the_slices_of_the_hosts_make_up_the_batch(num_hosts):
    rows = rows_of(10)
    for whole in (shuffled(rows, 6, 0, 4), in_order(rows, 6)):
        parts = [whole.of_host(host, num_hosts) for host in range(num_hosts)]
        assert {len(part) for part in parts} == {len(whole)}
        for step in range(len(whole)):
            expected = whole[step]
            for name in ("tokens", "lengths", "valid"):
                together = np.concatenate([part[step][name] for part in parts])
                np.testing.assert_array_equal(together, expected[name])


@given(st.integers(0, 20), st.integers(1, 7))
def test_in_order_every_row_comes_once(count, batch_size):
    batches = in_order(rows_of(count), batch_size)
    assert len(batches) == -(-count // batch_size)
    if not count:
        return
    found = joined(batches)
    assert len(found["valid"]) == len(batches) * batch_size
    assert found["valid"].tolist() == [1] * count + [0] * (len(found["valid"]) - count)
    real = {name: array[found["valid"] == 1] for name, array in found.items()}
    assert_rows(real, range(count))


def test_the_last_batch_is_filled_up():
    batches = in_order(rows_of(5), 4)
    last = batches[1]
    assert last["valid"].tolist() == [1, 0, 0, 0]
    assert last["valid"].dtype == np.int32
    assert last["tokens"].shape == (4, 3)
    assert last["tokens"].dtype == np.int32
    # Whole hosts may have no row of it.
    assert in_order(rows_of(5), 4).of_host(1, 2)[1]["valid"].tolist() == [0, 0]


@pytest.mark.parametrize(("batch_size", "num_hosts"), [(4, 3), (0, 1), (1, 2), (-2, 1)])
def test_batches_that_hosts_cannot_share(batch_size, num_hosts):
    with pytest.raises(ConfigError, match=rf"\({batch_size}\).*{num_hosts} hosts"):
        shuffled(rows_of(5), batch_size, 0, 1).of_host(0, num_hosts)
    message = rf"task\.validation_batch_size \({batch_size}\).*{num_hosts} hosts"
    with pytest.raises(ConfigError, match=message):
        in_order(rows_of(5), batch_size).of_host(0, num_hosts)
