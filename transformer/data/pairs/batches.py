"""Pairs of sentences in batches of few shapes, each of which is compiled once.

The batch of a step is a pure function of the seed and the step, as for token streams.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from transformer.data.pairs.files import TokenPairs
from transformer.ops.losses import IGNORED


class Bucket(NamedTuple):
    """One shape of batches: `rows` pairs of at most `length` tokens a side."""

    rows: int
    length: int


def make_buckets(
    lengths: np.ndarray, *, batch_tokens: int, longest: int, rows_multiple: int
) -> tuple[Bucket, ...]:
    """Shapes that hold all lengths: 8, 12, 16, 20, 28, ... tokens, a quarter more each time.

    The lengths do not depend on the data, so that programs compiled for one file serve the next.

    Args:
        lengths: of all pairs.
        batch_tokens: of one side of a batch at most, padding included.
        longest: the length of the last bucket; no pair is longer.
        rows_multiple: what every number of rows is a multiple of.
    """
    edges = [min(8, longest)]
    while edges[-1] < min(longest, int(lengths.max())):
        edges.append(min(longest, math.ceil(edges[-1] * 1.25 / 4) * 4))
    places = set(np.searchsorted(edges, lengths).tolist())
    return tuple(
        Bucket(max(1, batch_tokens // edge // rows_multiple) * rows_multiple, edge)
        for place, edge in enumerate(edges)
        if place in places
    )


@dataclasses.dataclass(frozen=True)
class BucketedBatches:
    """Batches of pairs of similar length; item `step` is the batch of that step.

    An epoch visits every pair once: the pairs of a bucket in a new order, then the batches of all
    buckets in a new order. The last batch of a bucket is filled up with empty rows.

    Attributes:
        pairs: none longer than the last bucket.
        buckets: the shapes.
        seed: of the orders; None keeps the pairs in order, shortest bucket first.
        num_steps: how many batches there are; None for one epoch.
        host: index of this host.
        num_hosts: how many share each batch.
        longest_target: no target is longer, so that its side of a batch need not be; None has both
            sides alike.
    """

    pairs: TokenPairs
    buckets: tuple[Bucket, ...]
    seed: int | None = None
    num_steps: int | None = None
    host: int = 0
    num_hosts: int = 1
    longest_target: int | None = None

    @functools.cached_property
    def _plans(self) -> "_Plans":
        return _Plans()

    @functools.cached_property
    def _members(self) -> list[np.ndarray]:
        """The pairs of each bucket."""
        edges = [bucket.length for bucket in self.buckets]
        places = np.searchsorted(edges, self.pairs.lengths)
        return [np.flatnonzero(places == place) for place in range(len(edges))]

    @functools.cached_property
    def steps_per_epoch(self) -> int:
        """Batches in one pass over the pairs."""
        return sum(
            math.ceil(len(members) / bucket.rows)
            for members, bucket in zip(self._members, self.buckets, strict=True)
        )

    def padding(self) -> float:
        """The fraction of a batch's tokens that are padding, over an epoch."""
        room = sum(
            bucket.rows * (bucket.length + _target_length(bucket, self.longest_target))
            for bucket, _ in self.plan(0)
        )
        return _padding(self.pairs, room)

    def __len__(self) -> int:
        return self.steps_per_epoch if self.num_steps is None else self.num_steps

    def __getitem__(self, step: Any) -> dict[str, np.ndarray]:
        epoch, place = divmod(int(step), self.steps_per_epoch)
        bucket, rows = self._plans.of(self, epoch)[place]
        local = bucket.rows // self.num_hosts
        rows = rows[self.host * local : (self.host + 1) * local]
        return lay_out(
            self.pairs,
            [[pair] for pair in rows.tolist()],
            local,
            bucket.length,
            target_length=_target_length(bucket, self.longest_target),
        )

    def plan(self, epoch: int) -> list[tuple[Bucket, np.ndarray]]:
        """The batches of an epoch: shape and pairs of each."""
        random = None
        if self.seed is not None:
            random = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
        batches = []
        for members, bucket in zip(self._members, self.buckets, strict=True):
            order = members if random is None else random.permutation(members)
            cuts = range(0, len(order), bucket.rows)
            batches += [(bucket, order[cut : cut + bucket.rows]) for cut in cuts]
        if random is not None:
            batches = [batches[place] for place in random.permutation(len(batches))]
        return batches


@dataclasses.dataclass(frozen=True)
class PackedBatches:
    """Batches of one shape whose rows hold several pairs each.

    Which pairs share a row is decided once, first fit in an order drawn from the seed; an epoch
    visits every row once, in a new order.

    Attributes:
        pairs: none longer than the bucket.
        bucket: the shape.
        seed: of the orders.
        num_steps: how many batches there are.
        host: index of this host.
        num_hosts: how many share each batch.
        longest_target: the targets of a row have so many tokens; None has as many as the sources.
    """

    pairs: TokenPairs
    bucket: Bucket
    seed: int
    num_steps: int
    host: int = 0
    num_hosts: int = 1
    longest_target: int | None = None

    @functools.cached_property
    def _plans(self) -> "_Plans":
        return _Plans()

    @functools.cached_property
    def rows(self) -> list[list[int]]:
        """The pairs of each row."""
        random = np.random.Generator(np.random.Philox(key=[self.seed, 0]))
        order = random.permutation(len(self.pairs.source))
        return pack(self.pairs, self.bucket.length, order, target_length=self._target_length)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one pass over the pairs."""
        return math.ceil(len(self.rows) / self.bucket.rows)

    @property
    def buckets(self) -> tuple[Bucket, ...]:
        """The one shape."""
        return (self.bucket,)

    def padding(self) -> float:
        """The fraction of a batch's tokens that are padding, over an epoch."""
        row = self.bucket.length + self._target_length
        return _padding(self.pairs, self.steps_per_epoch * self.bucket.rows * row)

    def __len__(self) -> int:
        return self.num_steps

    def __getitem__(self, step: Any) -> dict[str, np.ndarray]:
        epoch, place = divmod(int(step), self.steps_per_epoch)
        local = self.bucket.rows // self.num_hosts
        first = place * self.bucket.rows + self.host * local
        chosen = self._plans.of(self, epoch)[first : first + local]
        rows = [self.rows[row] for row in chosen]
        return lay_out(
            self.pairs,
            rows,
            local,
            self.bucket.length,
            positions=True,
            target_length=self._target_length,
        )

    @property
    def _target_length(self) -> int:
        return _target_length(self.bucket, self.longest_target)

    def plan(self, epoch: int) -> np.ndarray:
        """The order of the rows in an epoch."""
        random = np.random.Generator(np.random.Philox(key=[self.seed, epoch + 1]))
        return random.permutation(len(self.rows))


def pack(
    pairs: TokenPairs,
    length: int,
    order: np.ndarray,
    *,
    target_length: int | None = None,
    open_rows: int = 64,
) -> list:
    """Rows of pairs whose sources and whose targets each fit into `length` tokens.

    Those of the targets have `target_length` tokens, if that is another number. First fit over the
    rows opened last: time and memory stay linear in the number of pairs.
    """
    sources, targets = pairs.source.lengths, pairs.target.lengths
    rows: list[list[int]] = []
    room: list[tuple[int, int, int]] = []  # Row, and what is left of its source and target.
    for pair in order.tolist():
        source, target = int(sources[pair]), int(targets[pair])
        for place, (row, source_left, target_left) in enumerate(room):
            if source <= source_left and target <= target_left:
                rows[row].append(pair)
                room[place] = (row, source_left - source, target_left - target)
                break
        else:
            rows.append([pair])
            room.append((len(rows) - 1, length - source, (target_length or length) - target))
            if len(room) > open_rows:
                room.pop(0)
    return rows


def lay_out(
    pairs: TokenPairs,
    rows: Sequence[Sequence[int]],
    num_rows: int,
    length: int,
    *,
    positions: bool = False,
    target_length: int | None = None,
) -> dict[str, np.ndarray]:
    """The arrays of a batch, all `[num_rows, length]`.

    `source` and `target` hold tokens, `*_segments` which pair of its row a token belongs to (0 is
    padding), `labels` the token that follows in the target. A target begins with the end token,
    which so is the sign to begin as well. Rows beyond those given are empty.

    Args:
        pairs: all of them.
        rows: which pairs are in each row.
        num_rows: rows of the batch.
        length: of a row.
        positions: also gives `*_positions`, the place of each token in its sentence, which rows
            of several pairs need.
        target_length: of the target's side, if that is another length.
    """
    lengths = {"source": length, "target": target_length or length}
    names = ("source", "source_segments", "target", "target_segments")
    if positions:
        names += ("source_positions", "target_positions")
    batch = {name: np.zeros((num_rows, lengths[name.split("_")[0]]), np.int32) for name in names}
    batch["labels"] = np.full((num_rows, lengths["target"]), IGNORED, np.int32)
    for row, members in enumerate(rows):
        filled = {"source": 0, "target": 0}
        for segment, pair in enumerate(members, 1):
            for side, sentences in zip(filled, pairs, strict=True):
                ids = sentences[pair]
                place = slice(filled[side], filled[side] + len(ids))
                filled[side] = place.stop
                batch[f"{side}_segments"][row, place] = segment
                if positions:
                    batch[f"{side}_positions"][row, place] = np.arange(len(ids))
                if side == "source":
                    batch[side][row, place] = ids
                else:
                    batch["labels"][row, place] = ids
                    batch[side][row, place] = np.roll(ids, 1)
    return batch


class _Plans:
    """The plans of the newest epochs, kept while their steps are read and with their batches.

    A cache of the module would keep corpora alive that nobody reads any more.
    """

    def __init__(self) -> None:
        self._kept: dict[int, Any] = {}

    def of(self, batches: Any, epoch: int) -> Any:
        """The plan of an epoch; threads that read ahead may ask for the next one already."""
        kept = self._kept
        if epoch not in kept:
            before = {other: plan for other, plan in kept.items() if other == epoch - 1}
            # Another dict, not this one changed: a thread may be reading it.
            self._kept = kept = {**before, epoch: batches.plan(epoch)}
        return kept[epoch]


def _target_length(bucket: Bucket, longest: int | None) -> int:
    return bucket.length if longest is None else min(bucket.length, longest)


def _padding(pairs: TokenPairs, room: int) -> float:
    """The fraction of `room`, tokens of both sides, that is padding."""
    return 1.0 - (len(pairs.source.tokens) + len(pairs.target.tokens)) / room
