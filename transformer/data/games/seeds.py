"""Random seeds as examples, for data that are made on the device."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from transformer.data.source import Visit
from transformer.types import HostBatch


@dataclasses.dataclass(frozen=True)
class SeedSource:
    """As many seeds as an epoch shall have; every visit of an example has another one.

    Attributes:
        count: how many.
    """

    count: int

    def __len__(self) -> int:
        return self.count

    def batch(self, visits: Sequence[Visit]) -> HostBatch:
        """`seeds`, `[B]`, uint32, and `valid`."""
        seeds = [visit.generator().integers(1 << 32, dtype=np.uint32) for visit in visits]
        return {"seeds": np.array(seeds), "valid": np.ones(len(seeds), np.int32)}

    def padding(self, visit: Visit) -> HostBatch:
        """A seed that is not `valid`."""
        return {"seeds": np.zeros(1, np.uint32), "valid": np.zeros(1, np.int32)}
