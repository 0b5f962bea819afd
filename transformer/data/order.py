"""Examples in a new order every epoch, each with random numbers of its own.

Which examples a step holds and what is drawn for each of them are pure functions of the seed and of
numbers that count, so that any step can be made without those before it, by any number of hosts.
"""

import functools

import grain
import numpy as np

from transformer.errors import ConfigError

# Orders of so many examples are kept whole. The block cipher that shuffles more has blocks of at
# least 16 bits, and searches long for the few numbers of a small set: 5 ms for one of ten.
_KEPT = 1 << 16
# Rounds of the cipher.
_ROUNDS = 4


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


def visit(index: int, count: int, seed: int) -> tuple[int, int]:
    """The epoch and the example that come at a place of the endless stream of examples.

    Args:
        index: the place, from 0.
        count: examples in an epoch; each is visited once.
        seed: of the orders.
    """
    epoch, place = divmod(index, count)
    if count <= _KEPT:
        return epoch, int(_order(seed, epoch, count)[place])
    example = grain.experimental.index_shuffle(
        place, max_index=count - 1, seed=_cipher_seed(seed, epoch), rounds=_ROUNDS
    )
    return epoch, int(example)


def host_places(step: int, batch_size: int, host: int, num_hosts: int) -> range:
    """The places in the stream of examples that a host's slice of a step's batch holds."""
    local = batch_size // num_hosts
    first = step * batch_size + host * local
    return range(first, first + local)


def require_divisible(batch_size: int, num_hosts: int, field: str = "batch_size") -> None:
    """Refuses a batch that hosts cannot share.

    Args:
        batch_size: over all hosts.
        num_hosts: how many share it.
        field: of `config.task`, that says how large batches of this kind are.

    Raises:
        ConfigError: with both numbers.
    """
    if batch_size < 1 or batch_size % num_hosts:
        raise ConfigError(
            f"config.task.{field} ({batch_size}) does not divide over {num_hosts} hosts."
        )


@functools.lru_cache(maxsize=8)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The examples of an epoch, one after another."""
    return epoch_generator(seed, epoch).permutation(count)


@functools.lru_cache(maxsize=8)
def _cipher_seed(seed: int, epoch: int) -> int:
    """What tells the order of one epoch from that of another."""
    return int(epoch_generator(seed, epoch).integers(1 << 31))
