"""From a dataset of steps to arrays on the devices, several steps at a time."""

from collections.abc import Mapping
from typing import Any

import grain
import jax
import numpy as np
from jax.sharding import NamedSharding


class Feeder:
    """Hands out batches in stacks and knows where in the data it is.

    The position is taken before batches are read ahead, so that it belongs to what was handed out.
    """

    def __init__(
        self,
        dataset: grain.MapDataset,
        place: NamedSharding,
        *,
        most: int,
        position: Mapping[str, Any] | None = None,
    ) -> None:
        """Begins at `position`, as it was saved, or at the first step.

        Args:
            dataset: batches by step, the part of this host.
            place: of a stack of global batches, `[most, B, ...]`.
            most: the most steps handed out at once; every stack is this large.
            position: from `position`, earlier.
        """
        self._place, self._most = place, most
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=max(2, most))
        self._iterator = iter(dataset.to_iter_dataset(options))
        if position is not None:
            self._iterator.set_state(dict(position))

    @property
    def position(self) -> Mapping[str, Any]:
        """Where the next stack begins; the same on every host."""
        return self._iterator.get_state()

    def take(self, count: int) -> Any:
        """The next `count` batches, stacked to `[most, B, ...]`; the rest is zero."""
        batches = [next(self._iterator) for _ in range(count)]

        def stack(*arrays: np.ndarray) -> jax.Array:
            stacked = np.zeros((self._most, *arrays[0].shape), arrays[0].dtype)
            stacked[:count] = arrays
            return jax.make_array_from_process_local_data(self._place, stacked)

        return jax.tree.map(stack, *batches)
