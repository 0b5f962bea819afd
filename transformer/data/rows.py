"""Batches of rows: arrays that lie in memory whole and share their first axis."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from transformer.data.order import host_places, require_divisible, visit

Rows = Mapping[str, np.ndarray]


def num_rows(rows: Rows) -> int:
    """How many rows there are."""
    return len(next(iter(rows.values())))


@dataclasses.dataclass(frozen=True)
class ShuffledRows:
    """Rows in a new order each epoch; the batch of a step is a function of the seed and the step.

    An epoch visits every row once. Batches do not stop at its end: they take up the next one.
    `batch["valid"]` is 1 for every row, as in `SequentialRows`.

    Attributes:
        rows: arrays by name.
        batch_size: B over all hosts.
        seed: of the orders.
        num_steps: how many batches there are.
        host: index of this host.
        num_hosts: how many share each batch.
    """

    rows: Rows
    batch_size: int
    seed: int
    num_steps: int
    host: int = 0
    num_hosts: int = 1

    def __post_init__(self) -> None:
        require_divisible(self.batch_size, self.num_hosts)

    def __len__(self) -> int:
        return self.num_steps

    def __getitem__(self, step: Any) -> dict[str, np.ndarray]:
        places = host_places(step, self.batch_size, self.host, self.num_hosts)
        count = num_rows(self.rows)
        chosen = np.array([visit(place, count, self.seed)[1] for place in places])
        batch = {name: array[chosen] for name, array in self.rows.items()}
        return {**batch, "valid": np.ones(len(chosen), np.int32)}


@dataclasses.dataclass(frozen=True)
class SequentialRows:
    """Every row once, in order; the last batch is filled up with rows that are not `valid`.

    Attributes:
        rows: arrays by name.
        batch_size: B over all hosts.
        host: index of this host.
        num_hosts: how many share each batch.
    """

    rows: Rows
    batch_size: int
    host: int = 0
    num_hosts: int = 1

    def __post_init__(self) -> None:
        require_divisible(self.batch_size, self.num_hosts, "validation_batch_size")

    def __len__(self) -> int:
        return math.ceil(num_rows(self.rows) / self.batch_size)

    def __getitem__(self, step: Any) -> dict[str, np.ndarray]:
        places = np.array(host_places(step, self.batch_size, self.host, self.num_hosts))
        valid = places < num_rows(self.rows)
        batch = {name: array[np.where(valid, places, 0)] for name, array in self.rows.items()}
        return {**batch, "valid": valid.astype(np.int32)}
