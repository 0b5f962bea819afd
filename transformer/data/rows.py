"""Rows of arrays that are held in memory and share their first axis."""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from transformer.data.source import Visit
from transformer.types import HostBatch

Rows = Mapping[str, np.ndarray]


def rows_digest(parts: Iterable[Rows], beginning: bytes = b"") -> str:
    """32 hexadecimal digits that change with any array of some rows.

    Args:
        parts: the rows, such as those to train on and those to validate on.
        beginning: what else they change with.
    """
    digest = hashlib.sha256(beginning)
    for rows in parts:
        for name in sorted(rows):
            digest.update(np.ascontiguousarray(rows[name]).tobytes())
    return digest.hexdigest()[:32]


def num_rows(rows: Rows) -> int:
    """How many rows there are."""
    return len(next(iter(rows.values())))


@dataclasses.dataclass(frozen=True, eq=False)
class RowSource:
    """Rows as examples. `batch["valid"]` is 1 for them, and 0 for padding.

    Attributes:
        rows: arrays by name.
    """

    rows: Rows

    def __len__(self) -> int:
        return num_rows(self.rows)

    def batch(self, visits: Sequence[Visit]) -> HostBatch:
        """These rows."""
        chosen = np.array([visit.example for visit in visits])
        batch = {name: array[chosen] for name, array in self.rows.items()}
        return {**batch, "valid": np.ones(len(chosen), np.int32)}

    def padding(self, visit: Visit) -> HostBatch:
        """The first row, not `valid`."""
        return {**self.batch([Visit(0)]), "valid": np.zeros(1, np.int32)}
