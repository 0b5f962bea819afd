"""Batches of a fixed number of rows."""

import dataclasses

from transformer.data.order import Batches, Epochs, InOrder
from transformer.data.source import Source
from transformer.limits import BatchSize
from transformer.tasks.parts.protocol import Pace


@dataclasses.dataclass(frozen=True)
class FixedRows:
    """The part of tasks whose batches have a fixed number of rows.

    Attributes:
        batch_size: B, rows (images, windows of a text, games, ...) per step over all hosts and
            microbatches.
        validation_batch_size: rows per validation batch; None takes `batch_size`.
    """

    batch_size: BatchSize = 32
    validation_batch_size: BatchSize | None = None

    @property
    def in_validation(self) -> int:
        """The rows of a validation batch."""
        return self.validation_batch_size or self.batch_size

    def train_batches(
        self, source: Source, *, seed: int, num_steps: int, shuffled: bool = True
    ) -> Batches:
        """Epoch after epoch of a source; arguments as in `data.order.Epochs`."""
        return Batches(source, Epochs(len(source), self.batch_size, seed, num_steps, shuffled))

    def validation_batches(self, source: Source) -> Batches:
        """Every example of a source once, in order."""
        return Batches(source, InOrder(len(source), self.in_validation))

    def pace(self, examples: int, tokens_per_row: int | float) -> Pace:
        """The size of steps and epochs, for a source with so many examples."""
        size = float(self.batch_size)
        return Pace(size, size * tokens_per_row, examples)
