"""Stacks the rows that a process feeds in several steps, to hand them to the device together."""

import grain
import jax
import numpy as np

from transformer.data.order import Batches
from transformer.sharding import rows_by_process
from transformer.types import Facts, HostBatch


def of_this_host(batches: Batches, mesh: jax.sharding.Mesh, *, padded: bool = False) -> Batches:
    """The rows of each batch that this process feeds: those that its devices hold.

    Args:
        batches: the batches of all hosts.
        mesh: the device mesh.
        padded: adds rows of padding, so that the rows divide over the devices.
    """
    rows = rows_by_process(mesh)
    if rows is None:
        raise ValueError("`combinations.check_rows` refuses this mesh.")
    groups = sorted(set(rows.values()))
    own = rows[jax.process_index()]
    return batches.of_host(groups.index(own), len(groups), len(own) if padded else 1)


class Feeder:
    """Hands out stacks of batches and knows its position in the data.

    The position ignores batches that were read ahead: it belongs to what was handed out.

    Attributes:
        batches: this process's rows of the batches of all steps.
    """

    def __init__(
        self,
        batches: Batches,
        *,
        limit: int,
        position: Facts | None = None,
    ) -> None:
        """Begins at a saved `position`, or at the first step.

        Args:
            batches: the rows of each step's batch that this process feeds; see `of_this_host`.
            limit: the size of every stack: the maximum number of steps handed out at once.
            position: an earlier result of `position()`.
        """
        self.batches, self._limit = batches, limit
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=max(2, limit))
        dataset: grain.MapDataset = grain.MapDataset.source(batches)
        self._iterator = iter(dataset.to_iter_dataset(options))
        if position is not None:
            self._iterator.set_state(dict(position))
        # A batch that was read but not handed out, and its position.
        self._held: HostBatch | None = None
        self._held_at: Facts = {}

    def close(self) -> None:
        """Stops reading ahead."""
        self._iterator.close()

    @property
    def position(self) -> Facts:
        """The position at which the next stack begins; the same on every host."""
        return self._iterator.get_state() if self._held is None else self._held_at

    def take(self, count: int) -> tuple[HostBatch, int]:
        """The next batches of equal shape, at least one and at most `count`.

        Returns:
            The batches stacked to `[limit, B, ...]`, padded with zeros, and their number.
        """
        batches = [self._next()]
        while len(batches) < count:
            batch = self._next()
            if _shapes(batch) != _shapes(batches[0]):
                self._held = batch
                break
            batches.append(batch)

        return jax.tree.map(self._stacked, *batches), len(batches)

    def _stacked(self, *arrays: np.ndarray) -> np.ndarray:
        stack = np.zeros((self._limit, *arrays[0].shape), arrays[0].dtype)
        stack[: len(arrays)] = arrays
        return stack

    def _next(self) -> HostBatch:
        if self._held is not None:
            batch, self._held = self._held, None
            return batch
        self._held_at = self._iterator.get_state()
        return next(self._iterator)


def _shapes(batch: HostBatch) -> list[tuple[int, ...]]:
    return [array.shape for array in jax.tree.leaves(batch)]
