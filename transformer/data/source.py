"""What an example is; `data.order` defines which examples each step visits."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from transformer.types import HostBatch


def epoch_generator(seed: int, epoch: int) -> np.random.Generator:
    """Random numbers that all examples of an epoch share."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch]))


def example_generator(seed: int, epoch: int, example: int) -> np.random.Generator:
    """Random numbers of one example in one epoch.

    Philox (Salmon et al. 2011) is a function of a key and a counter of 256 bits. Each example has
    its own value of the counter's highest word, and the epoch has value 0.
    """
    counter = [0, 0, 0, example + 1]
    return np.random.Generator(np.random.Philox(key=[seed, epoch], counter=counter))


class Visit(NamedTuple):
    """One visit of an example, with random numbers that depend on nothing else.

    Attributes:
        example: its number in the source.
        seed: the seed of the random numbers.
        epoch: how many times the whole source has been visited before.
    """

    example: int
    seed: int = 0
    epoch: int = 0

    def generator(self) -> np.random.Generator:
        """Random numbers of this visit alone."""
        return example_generator(self.seed, self.epoch, self.example)

    def epoch_generator(self) -> np.random.Generator:
        """Random numbers that all visits of the same epoch share."""
        return epoch_generator(self.seed, self.epoch)


@runtime_checkable
class Source(Protocol):
    """Examples, and how to make a batch of some of them. It knows nothing of steps and hosts."""

    def __len__(self) -> int:
        """How many examples there are."""
        ...

    def batch(self, visits: Sequence[Visit]) -> HostBatch:
        """Arrays by name with one row for each visit, of which there is at least one."""
        ...

    def padding(self, visit: Visit) -> HostBatch:
        """A padding row, in the shape of a batch with this visit."""
        ...
