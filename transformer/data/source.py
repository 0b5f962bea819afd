"""What an example is, apart from the order in which steps visit examples: see `data.order`."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

Batch = dict[str, np.ndarray]


def epoch_generator(seed: int, epoch: int) -> np.random.Generator:
    """Random numbers that all examples of an epoch share."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch]))


def example_generator(seed: int, epoch: int, example: int) -> np.random.Generator:
    """Random numbers of one example in one epoch.

    Philox (Salmon et al. 2011) is a function of a key and a counter of 256 bits. An example owns
    the numbers below one value of the counter's highest word, and the epoch those of value 0.
    """
    counter = [0, 0, 0, example + 1]
    return np.random.Generator(np.random.Philox(key=[seed, epoch], counter=counter))


class Visit(NamedTuple):
    """One example at one of its visits, with random numbers that depend on nothing else.

    Attributes:
        example: its number in the source.
        seed: of the random numbers.
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
    """Examples, and how some of them become a batch. It knows of no steps and no hosts."""

    def __len__(self) -> int:
        """How many examples there are."""
        ...

    def batch(self, visits: Sequence[Visit]) -> Batch:
        """Arrays by name with one row for each visit, of which there is at least one."""
        ...

    def padding(self, visit: Visit) -> Batch:
        """A row that counts for nothing, in the shape that a batch with this visit has."""
        ...
