"""Batches of a fixed number of rows."""

from typing import Protocol, runtime_checkable

from transformer.data.order import Batches, Epochs, InOrder
from transformer.data.source import Source
from transformer.tasks.parts.protocol import Pace


@runtime_checkable
class FixedRows(Protocol):
    """A task whose batches have a fixed number of rows, over all hosts and microbatches."""

    batch_size: int
    # None takes `batch_size`.
    validation_batch_size: int | None


def train_batches(
    task: FixedRows, source: Source, *, seed: int, num_steps: int, shuffled: bool = True
) -> Batches:
    """Epoch after epoch of a source; arguments as in `data.order.Epochs`."""
    return Batches(source, Epochs(len(source), task.batch_size, seed, num_steps, shuffled))


def validation_batches(task: FixedRows, source: Source) -> Batches:
    """Every example of a source once, in order."""
    size = task.validation_batch_size or task.batch_size
    return Batches(source, InOrder(len(source), size))


def pace(task: FixedRows, examples: int, tokens_per_row: int | float) -> Pace:
    """The size of steps and epochs, for a source with so many examples."""
    size = float(task.batch_size)
    return Pace(size, size * tokens_per_row, examples)
