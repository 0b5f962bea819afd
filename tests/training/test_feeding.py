import numpy as np
import pytest

from transformer.data.order import Batches
from transformer.data.source import Visit
from transformer.training.feeding import Feeder

# Rows of the batch of each step: the shape changes twice.
ROWS = [2, 2, 2, 4, 4, 2, 2]


class Steps:
    """An example is the number of a step, repeated in all rows of its batch."""

    SETTING = "batch_size"
    sizes = ROWS

    def __len__(self):
        return len(ROWS)

    def rows(self, step):
        return ROWS[step]

    def visits(self, step, rows):
        return [Visit(step)] * len(range(ROWS[step])[rows])

    def batch(self, visits):
        return {"x": np.array([[visit.example] * 3 for visit in visits], np.int32)}

    def padding(self, visit):
        raise AssertionError("all rows hold examples.")


@pytest.fixture
def feeder():
    def make(position=None):
        return Feeder(Batches(Steps(), Steps()), limit=4, position=position)

    return make


def taken(feeder, count):
    batches, number = feeder.take(count)
    assert batches["x"].shape[0] == 4
    assert not np.asarray(batches["x"][number:]).any()
    return np.asarray(batches["x"][:number, 0, 0]).tolist()


def test_batches_of_one_shape_at_a_time(feeder):
    feeder = feeder()
    assert [taken(feeder, count) for count in (2, 4, 4, 1, 1)] == [[0, 1], [2], [3, 4], [5], [6]]


@pytest.mark.parametrize("counts", [(2,), (3,), (4,), (4, 4), (4, 1), (4, 4, 1)])
def test_position_is_that_of_what_was_handed_out(feeder, counts):
    """Also where the next batch was read already, to see its shape."""
    first = feeder()
    done = [step for count in counts for step in taken(first, count)]
    second = feeder(first.position)
    assert taken(second, 1) == taken(first, 1) == [len(done)]
