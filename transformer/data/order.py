"""Which examples a batch holds: shuffled, in order, bucketed or packed, on one host or several.

A `Source` knows its number of examples and makes batches of given examples. An `Order` knows which
examples each step visits. `Batches` combines both: the batch of a step is a pure function of the
seed and the step, so any step can be made without those before it, by any number of hosts.
"""

import collections
import dataclasses
import functools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, NamedTuple, Protocol, SupportsIndex, runtime_checkable

import grain
import numpy as np

from transformer.data.source import Source, Visit, epoch_generator
from transformer.errors import ConfigError
from transformer.types import HostBatch

# Permutations of up to this many examples are held in memory. The block cipher that shuffles larger
# sets has blocks of at least 16 bits, which makes it slow for small sets: 5 ms for one of ten.
_KEPT = 1 << 16
# The number of rounds of the cipher.
_ROUNDS = 4


@runtime_checkable
class Order(Protocol):
    """Which examples each step visits, over all hosts."""

    # The field of `config.task` that determines the numbers of rows.
    SETTING: ClassVar[str]

    @property
    def sizes(self) -> Sequence[int]:
        """The numbers of rows that batches have."""
        ...

    def __len__(self) -> int:
        """How many steps there are."""
        ...

    def rows(self, step: int) -> int:
        """The number of rows of a step's batch."""
        ...

    def visits(self, step: int, rows: slice) -> Sequence[Visit]:
        """The examples in these rows of a step's batch; fewer if the rest is padding.

        The first row of every batch holds an example.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Batches:
    """The batches of all steps, or one host's rows of each of them.

    Attributes:
        source: makes batches of examples.
        order: knows the examples of each step.
        host: which part of each batch this is.
        num_hosts: how many parts of equal size each batch has.
        multiple: padding rows make the number of rows a multiple of this.
    """

    source: Source
    order: Order
    host: int = 0
    num_hosts: int = 1
    multiple: int = 1

    def __post_init__(self) -> None:
        for size in self.order.sizes:
            if size < 1 or size % self.num_hosts:
                raise ConfigError(
                    f"config.task.{self.order.SETTING} ({size}) does not divide over "
                    f"{self.num_hosts} hosts."
                )

    def of_host(self, host: int, num_hosts: int, multiple: int = 1) -> "Batches":
        """One host's rows of each batch.

        Raises:
            ConfigError: if the hosts cannot share the rows evenly.
        """
        return dataclasses.replace(self, host=host, num_hosts=num_hosts, multiple=multiple)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, step: SupportsIndex) -> HostBatch:
        step = operator.index(step)
        if not 0 <= step < len(self):
            raise IndexError(f"there are {len(self)} batches, and none with the number {step}.")
        share = self.order.rows(step) // self.num_hosts
        rows = slice(self.host * share, (self.host + 1) * share)
        visits = self.order.visits(step, rows)
        share += -share % self.multiple
        if len(visits) == share:
            return self.source.batch(visits)
        (first,) = self.order.visits(step, slice(1))
        batch = self.source.batch(visits) if visits else {}
        return _padded(batch, share - len(visits), self.source.padding(first))


def _padded(batch: HostBatch, missing: int, row: HostBatch) -> HostBatch:
    """Adds padding rows to a batch, which may be empty."""
    rows = {name: np.repeat(array, missing, axis=0) for name, array in row.items()}
    if not batch:
        return rows
    return {name: np.concatenate([array, rows[name]]) for name, array in batch.items()}


# ---------------------------------------------------------------------------------- the orders


@dataclasses.dataclass(frozen=True)
class Epochs:
    """Epoch after epoch, each visiting every example once.

    Batches continue across the ends of epochs.

    Attributes:
        count: the number of examples in the source.
        batch_size: B over all hosts.
        seed: the seed of orders and visits.
        num_steps: how many batches there are.
        shuffled: whether each epoch has a new order.
    """

    SETTING: ClassVar[str] = "batch_size"

    count: int
    batch_size: int
    seed: int
    num_steps: int
    shuffled: bool = True

    @property
    def sizes(self) -> tuple[int]:
        """B."""
        return (self.batch_size,)

    def __len__(self) -> int:
        return self.num_steps

    def rows(self, step: int) -> int:
        """B."""
        return self.batch_size

    def visits(self, step: int, rows: slice) -> list[Visit]:
        """The examples in these rows."""
        first = step * self.batch_size
        return [self._visit(place) for place in range(first, first + self.batch_size)[rows]]

    def _visit(self, place: int) -> Visit:
        epoch, example = divmod(place, self.count)
        if self.shuffled:
            example = _shuffled(self.seed, epoch, self.count, example)
        return Visit(example, self.seed, epoch)


@dataclasses.dataclass(frozen=True)
class InOrder:
    """Every example once, in order; the last batch is filled up.

    Attributes:
        count: the number of examples in the source.
        batch_size: B over all hosts.
        seed: the seed of the visits.
    """

    SETTING: ClassVar[str] = "validation_batch_size"

    count: int
    batch_size: int
    seed: int = 0

    @property
    def sizes(self) -> tuple[int]:
        """B."""
        return (self.batch_size,)

    def __len__(self) -> int:
        return math.ceil(self.count / self.batch_size)

    def rows(self, step: int) -> int:
        """B, of the last batch as well."""
        return self.batch_size

    def visits(self, step: int, rows: slice) -> list[Visit]:
        """The examples in these rows."""
        first = step * self.batch_size
        places = range(first, first + self.batch_size)[rows]
        return [Visit(place, self.seed) for place in places if place < self.count]


class Bucket(NamedTuple):
    """One shape of batches: `rows` examples, each of at most `length` tokens."""

    rows: int
    length: int


def make_buckets(
    lengths: np.ndarray, *, batch_tokens: int, longest: int, rows_multiple: int
) -> tuple[Bucket, ...]:
    """Shapes that hold all lengths: 8, 12, 16, 20, 28, ... tokens, a quarter more each time.

    The lengths do not depend on the data, so programs compiled for one file work for the next.

    Args:
        lengths: the lengths of all examples.
        batch_tokens: the limit for a batch, padding included.
        longest: the length of the last bucket; no example is longer.
        rows_multiple: every number of rows is a multiple of this.
    """
    edges = [min(8, longest)]
    while edges[-1] < min(longest, int(lengths.max())):
        edges.append(min(longest, math.ceil(edges[-1] * 1.25 / 4) * 4))
    used = set(np.searchsorted(edges, lengths).tolist())
    return tuple(
        Bucket(max(1, batch_tokens // edge // rows_multiple) * rows_multiple, edge)
        for number, edge in enumerate(edges)
        if number in used
    )


Plan = list[tuple[Bucket, np.ndarray]]


@dataclasses.dataclass(frozen=True, eq=False)
class Planned:
    """Batches of several shapes, planned an epoch at a time; see `bucketed` and `packed`.

    Attributes:
        buckets: the shapes.
        plan: gives the batches of an epoch, by its number: the shape and the examples of each
            batch, perhaps too few to fill it. The number of batches of each shape is the same in
            every epoch.
        seed: the seed of the visits.
        num_steps: how many batches there are; None for one epoch.
    """

    SETTING: ClassVar[str] = "rows_multiple"

    buckets: tuple[Bucket, ...]
    plan: Callable[[int], Plan]
    seed: int = 0
    num_steps: int | None = None

    @property
    def sizes(self) -> list[int]:
        """The rows of the buckets."""
        return [bucket.rows for bucket in self.buckets]

    @functools.cached_property
    def batches_per_epoch(self) -> dict[Bucket, int]:
        """The number of batches of each shape in one pass over the examples."""
        counts = collections.Counter(bucket for bucket, _ in self._newest.of(0, self.plan))
        return {bucket: counts[bucket] for bucket in self.buckets}

    @functools.cached_property
    def steps_per_epoch(self) -> int:
        """Batches in one pass over the examples."""
        return sum(self.batches_per_epoch.values())

    def __len__(self) -> int:
        return self.steps_per_epoch if self.num_steps is None else self.num_steps

    def rows(self, step: int) -> int:
        """The rows of the step's bucket."""
        return self.planned(step)[0].rows

    def visits(self, step: int, rows: slice) -> list[Visit]:
        """The examples in these rows."""
        epoch = step // self.steps_per_epoch
        examples = self.planned(step)[1][rows].tolist()
        return [Visit(example, self.seed, epoch) for example in examples]

    @functools.cached_property
    def _newest(self) -> "_Newest":
        return _Newest()

    def planned(self, step: int) -> tuple[Bucket, np.ndarray]:
        """The shape of a step's batch, and its examples."""
        epoch, place = divmod(step, self.steps_per_epoch)
        return self._newest.of(epoch, self.plan)[place]


def bucketed(
    lengths: np.ndarray,
    buckets: tuple[Bucket, ...],
    seed: int | None = None,
    num_steps: int | None = None,
) -> Planned:
    """Examples of similar length share a batch.

    An epoch visits every example once: it shuffles the examples of each bucket, then the batches of
    all buckets. The last batch of a bucket is padded.

    Args:
        lengths: the lengths of all examples, none longer than the last bucket.
        buckets: the shapes, by increasing length.
        seed: the seed of the orders; None keeps the examples in order, shortest bucket first.
        num_steps: how many batches there are; None for one epoch.
    """
    numbers = np.searchsorted([bucket.length for bucket in buckets], lengths)
    members = [np.flatnonzero(numbers == number) for number in range(len(buckets))]

    def plan(epoch: int) -> Plan:
        random = None if seed is None else epoch_generator(seed, epoch)
        batches: Plan = []
        for bucket, examples in zip(buckets, members, strict=True):
            batches += _cut(bucket, examples if random is None else random.permutation(examples))
        if random is not None:
            batches = [batches[place] for place in random.permutation(len(batches))]
        return batches

    return Planned(buckets, plan, seed or 0, num_steps)


def packed(count: int, bucket: Bucket, seed: int, num_steps: int) -> Planned:
    """Batches of one shape, from rows in which a source has packed several examples.

    An epoch visits every row once, in a new order. Its last batch is padded.

    Args:
        count: the number of rows in the source.
        bucket: the shape.
        seed: the seed of the orders. Random numbers of its epoch 0 have decided which examples
            share a row.
        num_steps: how many batches there are.
    """

    def plan(epoch: int) -> Plan:
        return _cut(bucket, epoch_generator(seed, epoch + 1).permutation(count))

    return Planned((bucket,), plan, seed, num_steps)


def _cut(bucket: Bucket, examples: np.ndarray) -> Plan:
    """Cuts these examples into batches; the last batch may have too few."""
    cuts = range(0, len(examples), bucket.rows)
    return [(bucket, examples[cut : cut + bucket.rows]) for cut in cuts]


# ------------------------------------------------------------------------------------ shuffling


def shuffled_place(place: int, count: int, seed: int) -> int:
    """The place of one of `count` indices after shuffling by a block cipher, in constant memory."""
    if count == 1:
        return 0
    return int(
        grain.experimental.index_shuffle(place, max_index=count - 1, seed=seed, rounds=_ROUNDS)
    )


def _shuffled(seed: int, epoch: int, count: int, place: int) -> int:
    """The example at a place of an epoch."""
    if count <= _KEPT:
        return int(_permutation(seed, epoch, count)[place])
    return shuffled_place(place, count, _cipher_seed(seed, epoch))


@functools.lru_cache(maxsize=8)
def _permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    """The examples of an epoch, one after another."""
    return epoch_generator(seed, epoch).permutation(count)


@functools.lru_cache(maxsize=8)
def _cipher_seed(seed: int, epoch: int) -> int:
    """The key of the cipher for one epoch."""
    return int(epoch_generator(seed, epoch).integers(1 << 31))


class _Newest:
    """A cache of the plans of the newest epochs, one for each order.

    A module-level cache would keep unused orders alive.
    """

    def __init__(self) -> None:
        self._kept: Mapping[int, Plan] = {}

    def of(self, epoch: int, plan: Callable[[int], Plan]) -> Plan:
        """The plan of an epoch; threads that read ahead may ask for the next one already."""
        kept = self._kept
        if epoch not in kept:
            before = {other: found for other, found in kept.items() if other == epoch - 1}
            # A new dict, because another thread may be reading the old one.
            self._kept = kept = {**before, epoch: plan(epoch)}
        return kept[epoch]
