"""From batches by step to arrays on the devices, several steps at a time."""

from collections.abc import Mapping
from typing import Any

import grain
import jax
import numpy as np
from jax.sharding import NamedSharding

from transformer.data.order import Batches


def of_this_host(batches: Batches, multiple: int = 1) -> Batches:
    """The rows of each batch that this process feeds, filled up to a multiple."""
    return batches.of_host(jax.process_index(), jax.process_count(), multiple)


class Feeder:
    """Hands out batches in stacks and knows where in the data it is.

    The position is taken before batches are read ahead, so that it belongs to what was handed out.
    """

    def __init__(
        self,
        batches: Batches,
        place: NamedSharding | None,
        *,
        most: int,
        position: Mapping[str, Any] | None = None,
    ) -> None:
        """Begins at `position`, as it was saved, or at the first step.

        Args:
            batches: by step, over all hosts.
            place: of a stack of global batches, `[most, B, ...]`; None leaves it on the host.
            most: the most steps handed out at once; every stack is this large.
            position: from `position`, earlier.
        """
        self._place, self._most = place, most
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=max(2, most))
        dataset: grain.MapDataset = grain.MapDataset.source(of_this_host(batches))
        self._iterator = iter(dataset.to_iter_dataset(options))
        if position is not None:
            self._iterator.set_state(dict(position))
        # A batch that was read but not handed out, and where it was read.
        self._held: Any = None
        self._held_at: Mapping[str, Any] = {}

    def close(self) -> None:
        """Ends what reads ahead."""
        self._iterator.close()

    @property
    def position(self) -> Mapping[str, Any]:
        """Where the next stack begins; the same on every host."""
        return self._iterator.get_state() if self._held is None else self._held_at

    def take(self, count: int) -> tuple[Any, int]:
        """The next batches of one shape, at most `count` and at least one.

        Returns:
            The batches stacked to `[most, B, ...]`, zero beyond those taken, and their number.
        """
        batches = [self._next()]
        while len(batches) < count:
            batch = self._next()
            if _shapes(batch) != _shapes(batches[0]):
                self._held = batch
                break
            batches.append(batch)

        def stack(*arrays: np.ndarray) -> Any:
            stacked = np.zeros((self._most, *arrays[0].shape), arrays[0].dtype)
            stacked[: len(arrays)] = arrays
            if self._place is None:
                return stacked
            return jax.make_array_from_process_local_data(self._place, stacked)

        return jax.tree.map(stack, *batches), len(batches)

    def _next(self) -> Any:
        if self._held is not None:
            batch, self._held = self._held, None
            return batch
        self._held_at = self._iterator.get_state()
        return next(self._iterator)


def _shapes(batch: Any) -> list[tuple[int, ...]]:
    return [array.shape for array in jax.tree.leaves(batch)]
