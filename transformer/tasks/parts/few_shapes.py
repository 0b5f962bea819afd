"""Batches of a few shapes, each for rows of similar length."""

import dataclasses
from typing import Annotated

import numpy as np
from jaxtyping import Int

from transformer.data.audio.batches import duration_buckets
from transformer.data.order import Bucket
from transformer.limits import BatchSize, Whole


@dataclasses.dataclass(frozen=True)
class FewShapes:
    """The part of tasks on sound whose batches have a few shapes.

    Attributes:
        rows_multiple: the number of rows in a batch is a multiple of this; microbatches times
            devices must divide it.
        num_shapes: how many shapes batches have at most; each is compiled once.
    """

    rows_multiple: BatchSize = 8
    num_shapes: Annotated[int, Whole(1, 64)] = 3

    def buckets(
        self, lengths: Int[np.ndarray, " n"], *, batch_length: int, unit: int
    ) -> tuple[Bucket, ...]:
        """The shapes for rows of these lengths; arguments as in `duration_buckets`."""
        return duration_buckets(
            lengths,
            batch_length=batch_length,
            rows_multiple=self.rows_multiple,
            count=self.num_shapes,
            unit=unit,
        )
