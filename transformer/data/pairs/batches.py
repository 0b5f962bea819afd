"""Pairs of sentences as rows of batches: one pair per row, or several packed into a row."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from transformer.data.order import Bucket
from transformer.data.pairs.files import TokenPairs
from transformer.data.source import Visit, epoch_generator
from transformer.ops.losses import IGNORED
from transformer.types import HostBatch


@dataclasses.dataclass(frozen=True, eq=False)
class PairRows:
    """Pairs as examples, each in a separate row.

    A batch is as long as the shortest bucket that holds its pairs.

    Attributes:
        pairs: none longer than the last bucket.
        buckets: the shapes, by increasing length.
        longest_target: the limit for targets, so that their side of a batch can be shorter; None
            gives both sides the same length.
    """

    pairs: TokenPairs
    buckets: tuple[Bucket, ...]
    longest_target: int | None = None

    def __len__(self) -> int:
        return len(self.pairs.source)

    def batch(self, visits: Sequence[Visit]) -> HostBatch:
        """These pairs."""
        return self._lay_out([[visit.example] for visit in visits], visits)

    def padding(self, visit: Visit) -> HostBatch:
        """An empty row."""
        return self._lay_out([[]], [visit])

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """The length of the longer side of each pair."""
        return self.pairs.lengths

    def _lay_out(self, rows: Sequence[Sequence[int]], visits: Sequence[Visit]) -> HostBatch:
        longest = max(int(self.lengths[visit.example]) for visit in visits)
        length = next(bucket.length for bucket in self.buckets if bucket.length >= longest)
        target = _target_length(length, self.longest_target)
        return lay_out(self.pairs, rows, len(rows), length, target_length=target)


@dataclasses.dataclass(frozen=True, eq=False)
class PackedPairs:
    """Rows that hold several pairs each, as examples.

    Which pairs share a row is decided once, first fit in an order drawn from the seed.

    Attributes:
        pairs: none longer than a row.
        length: the length of a row.
        seed: the seed of the order.
        longest_target: the length of a row's targets; None takes that of the sources.
    """

    pairs: TokenPairs
    length: int
    seed: int
    longest_target: int | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, visits: Sequence[Visit]) -> HostBatch:
        """These rows."""
        return self._lay_out([self.rows[visit.example] for visit in visits])

    def padding(self, visit: Visit) -> HostBatch:
        """An empty row."""
        return self._lay_out([[]])

    @functools.cached_property
    def rows(self) -> list[list[int]]:
        """The pairs of each row."""
        order = epoch_generator(self.seed, 0).permutation(len(self.pairs.source))
        return pack(self.pairs, self.length, order, target_length=self._target_length)

    @property
    def _target_length(self) -> int:
        return _target_length(self.length, self.longest_target)

    def _lay_out(self, rows: Sequence[Sequence[int]]) -> HostBatch:
        return lay_out(
            self.pairs,
            rows,
            len(rows),
            self.length,
            positions=True,
            target_length=self._target_length,
        )


def padding_fraction(
    pairs: TokenPairs, batches: Mapping[Bucket, int], longest_target: int | None
) -> float:
    """The fraction of the tokens of all batches that is padding.

    Args:
        pairs: each of them is in one of the batches.
        batches: how many there are of each shape.
        longest_target: see `PairRows`.
    """
    room = sum(
        count * bucket.rows * (bucket.length + _target_length(bucket.length, longest_target))
        for bucket, count in batches.items()
    )
    return 1.0 - (len(pairs.source.tokens) + len(pairs.target.tokens)) / room


def pack(
    pairs: TokenPairs,
    length: int,
    order: np.ndarray,
    *,
    target_length: int | None = None,
    open_rows: int = 64,
) -> list:
    """Rows of pairs whose sources and whose targets each fit into `length` tokens.

    Targets fit into `target_length` tokens, if given. It is first fit over the rows opened last, so
    time and memory are linear in the number of pairs.
    """
    sources, targets = pairs.source.lengths, pairs.target.lengths
    rows: list[list[int]] = []
    room: list[tuple[int, int, int]] = []  # Row, and the free tokens of its source and target.
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
) -> HostBatch:
    """The arrays of a batch, all `[num_rows, length]`.

    `source` and `target` hold tokens, `*_segments` the pair in its row that a token belongs to (0
    is padding), and `labels` the next token of the target. A target begins with the end token,
    which so is the begin token, too. Rows beyond those given are empty.

    Args:
        pairs: all of them.
        rows: which pairs are in each row.
        num_rows: rows of the batch.
        length: the length of a row.
        positions: also gives `*_positions`, the place of each token in its sentence, which rows
            of several pairs need.
        target_length: the length of a target, if that is another number.
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


def _target_length(length: int, longest: int | None) -> int:
    return length if longest is None else min(length, longest)
