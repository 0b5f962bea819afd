"""Pretraining of encoder-decoders on plain text (Raffel et al. 2020, T5).

Span corruption (section 3.3.4): the source is a text in which spans are replaced by sentinels, and
the target holds the spans. Prefix language modeling (section 3.3.1): the source is the first part
of a text, and the target is the rest.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from transformer.data.source import Visit
from transformer.data.text.streams import TokenFile
from transformer.errors import ConfigError, DataError
from transformer.ops.losses import IGNORED
from transformer.types import HostBatch

OBJECTIVES = ("span_corruption", "prefix")


def noise_counts(length: int, density: float, mean_span: float) -> tuple[int, int]:
    """How many tokens of a text are hidden, and in how many spans.

    Both are rounded, as in the published code; at least one token is hidden and one is left, and
    each span has a token before it that is left.

    Args:
        length: tokens of the text, at least 2.
        density: fraction of them that is hidden.
        mean_span: tokens of a span on average.

    Raises:
        ConfigError: if that is impossible.
    """
    if length < 2 or not 0.0 < density < 1.0 or not 1.0 <= mean_span < math.inf:
        raise ConfigError(
            f"spans of {mean_span} tokens cannot hide a fraction of {density} of {length} tokens: "
            f"config.task.mean_span is 1 or more, config.task.density between 0 and 1, and a text "
            f"has 2 tokens or more."
        )
    hidden = min(max(round(length * density), 1), length - 1)
    spans = min(max(round(hidden / mean_span), 1), length - hidden)
    return hidden, spans


def corrupted_lengths(length: int, density: float, mean_span: float) -> tuple[int, int]:
    """The lengths of the source and target of a text, both with the end token.

    They depend only on the arguments, so all texts of one length make batches of one shape.
    """
    hidden, spans = noise_counts(length, density, mean_span)
    return length - hidden + spans + 1, hidden + spans + 1


def raw_length(source_length: int, density: float, mean_span: float) -> int:
    """The length of the longest text whose corrupted source has up to `source_length` tokens.

    Raises:
        ConfigError: if no text has so short a source.
    """
    length = 2
    if corrupted_lengths(length, density, mean_span)[0] > source_length:
        raise ConfigError(
            f"a source of {source_length} tokens is too short: a token, a sentinel and the end "
            f"token make 3."
        )
    # The length of the source never falls as that of the text grows.
    while corrupted_lengths(length + 1, density, mean_span)[0] <= source_length:
        length += 1
    return length


def split_prefix(
    tokens: np.ndarray, generator: np.random.Generator, *, end: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts a text of n tokens in two after 1 to n - 1 of them, all equally likely.

    Returns:
        The first part and the rest; both int32 with the end token.
    """
    cut = generator.integers(1, len(tokens))
    first, rest = (np.append(part, end).astype(np.int32) for part in np.split(tokens, [cut]))
    return first, rest


@dataclasses.dataclass(frozen=True)
class DenoisingWindows:
    """Non-overlapping windows of a token stream, as examples for an encoder-decoder.

    A batch has the arrays of a translation's, all int32: `source` and `source_segments`, `[b, S]`;
    `target`, which begins with the end token, `labels`, the tokens that follow, and
    `target_segments`, `[b, T]`. Segments are 1 at tokens and 0 at padding, where labels are
    `IGNORED`.

    Attributes:
        tokens: the stream; ids below the first sentinel.
        length: tokens of a window.
        objective: `span_corruption` or `prefix`.
        first_sentinel: id of the first sentinel; `num_sentinels` says how many there are.
        end: id of the end token.
        density: fraction of the tokens that is hidden; of span corruption.
        mean_span: tokens of a span on average; of span corruption.
        moving: whether each epoch cuts the stream at a new offset. Otherwise windows begin at the
            first token and cover the stream, but for a last window of a single token.
    """

    tokens: TokenFile | np.ndarray
    length: int
    objective: str
    first_sentinel: int
    end: int
    density: float = 0.15
    mean_span: float = 3.0
    moving: bool = True

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise ConfigError(
                f"the objective is {self.objective!r}: choose from {', '.join(OBJECTIVES)}."
            )
        noise_counts(self.length, self.density, self.mean_span)
        if len(self._stream) < self.length:
            raise DataError(
                f"the text has {len(self._stream)} tokens, too few for one window of "
                f"{self.length}: give a longer text or shorter windows."
            )

    def __len__(self) -> int:
        if not self.moving:
            # A window of a single token has nothing to mask.
            return math.ceil((len(self._stream) - 1) / self.length)
        # If there are several windows, one fewer than fits leaves room for an offset.
        return max(1, len(self._stream) // self.length - 1)

    @property
    def num_sentinels(self) -> int:
        """How many sentinels occur, none for prefixes."""
        if self.objective == "prefix":
            return 0
        return noise_counts(self.length, self.density, self.mean_span)[1]

    @property
    def lengths(self) -> tuple[int, int]:
        """S and T, tokens of a source and of a target."""
        if self.objective == "prefix":
            return self.length, self.length
        return corrupted_lengths(self.length, self.density, self.mean_span)

    def batch(self, visits: Sequence[Visit]) -> HostBatch:
        """These windows, with what is hidden or cut drawn for each visit."""
        starts = [self._start(visit) for visit in visits]
        windows = [self._stream[start : start + self.length] for start in starts]
        pairs = self._pairs(windows, [visit.generator() for visit in visits])
        return _lay_out(pairs, len(pairs), *self.lengths, end=self.end)

    def padding(self, visit: Visit) -> HostBatch:
        """An empty row."""
        return _lay_out([], 1, *self.lengths, end=self.end)

    @property
    def _stream(self) -> np.ndarray:
        return self.tokens if isinstance(self.tokens, np.ndarray) else self.tokens.array

    def _start(self, visit: Visit) -> int:
        """Where in the stream a window begins."""
        start = visit.example * self.length
        if not self.moving:
            return start
        slack = len(self._stream) - len(self) * self.length
        return start + int(visit.epoch_generator().integers(slack + 1))

    def _pairs(
        self, windows: Sequence[np.ndarray], generators: Sequence[np.random.Generator]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Source and target of each window."""
        drawn = list(zip(windows, generators, strict=True))
        if self.objective == "prefix":
            return [split_prefix(window, random, end=self.end) for window, random in drawn]
        # Windows of one length are corrupted together; only the last of a pass may be shorter.
        full = sum(len(window) == self.length for window in windows)
        pairs: list[tuple[np.ndarray, np.ndarray]] = []
        for part in (drawn[:full], drawn[full:]):
            if part:
                sources, targets = corrupt_spans(
                    np.stack([window for window, _ in part]),
                    [random for _, random in part],
                    self.density,
                    self.mean_span,
                    first_sentinel=self.first_sentinel,
                    end=self.end,
                )
                pairs += zip(sources, targets, strict=True)
        return pairs


def corrupt_spans(
    tokens: np.ndarray,
    generators: Sequence[np.random.Generator],
    density: float,
    mean_span: float,
    *,
    first_sentinel: int,
    end: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Hides random spans of texts of one length.

    The hidden tokens are cut into spans, and the others into the segments between them, each
    uniformly among all ways to do so. A text begins with a token that is left and ends with one
    that is hidden, as in the published code.

    Args:
        tokens: `[B, n]` ids.
        generators: random numbers for the cuts, one for each text.
        density: fraction of the tokens that is hidden.
        mean_span: tokens of a span on average.
        first_sentinel: id of the first span's sentinel; the others follow it. T5 counts downwards.
        end: id of the end token.

    Returns:
        The texts with sentinels for spans, and each sentinel followed by its span; both int32 with
        the end token, of the lengths that `corrupted_lengths` gives.
    """
    rows, length = tokens.shape
    hidden, spans = noise_counts(length, density, mean_span)
    draws = np.stack([random.random(length - 2) for random in generators])
    left_lengths = _segment(draws[:, hidden - 1 :], spans)
    span_lengths = _segment(draws[:, : hidden - 1], spans)

    is_hidden = _alternate(left_lengths, span_lengths)
    one = np.ones_like(span_lengths)
    sentinels = np.tile(np.arange(first_sentinel, first_sentinel + spans), rows)
    sources = np.full((rows, length - hidden + spans + 1), end, np.int32)
    is_sentinel = _alternate(left_lengths, one)
    sources[:, :-1][is_sentinel] = sentinels
    sources[:, :-1][~is_sentinel] = tokens[~is_hidden]

    targets = np.full((rows, hidden + spans + 1), end, np.int32)
    is_token = _alternate(one, span_lengths)
    targets[:, :-1][~is_token] = sentinels
    targets[:, :-1][is_token] = tokens[is_hidden]
    return sources, targets


def _segment(draws: np.ndarray, parts: int) -> np.ndarray:
    """Cuts n items into non-empty parts, all ways equally likely.

    Args:
        draws: `[B, n - 1]` random numbers, one for each place between two things.
        parts: how many.

    Returns:
        `[B, parts]`, the lengths of the parts.
    """
    rows, places = draws.shape
    cuts = np.sort(np.argsort(draws, axis=1)[:, : parts - 1], axis=1) + 1
    return np.diff(cuts, axis=1, prepend=0, append=places + 1).reshape(rows, parts)


def _alternate(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Stretches of False and of True in turn, of the lengths `first` and `second`, `[B, k]`."""
    lengths = np.stack([first, second], axis=-1).reshape(len(first), -1)
    values = np.tile([False, True], first.size)
    return np.repeat(values, lengths.ravel()).reshape(len(first), -1)


def _lay_out(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    num_rows: int,
    source_length: int,
    target_length: int,
    *,
    end: int,
) -> HostBatch:
    """The arrays of a batch; rows beyond the pairs are empty.

    Unlike sentences and their translations, sources and targets differ in length.
    """
    source = np.zeros((num_rows, source_length), np.int32)
    target = np.zeros((num_rows, target_length), np.int32)
    labels = np.full((num_rows, target_length), IGNORED, np.int32)
    segments = np.zeros_like(source), np.zeros_like(target)
    for row, (read, written) in enumerate(pairs):
        source[row, : len(read)] = read
        target[row, 0] = end
        target[row, 1 : len(written)] = written[:-1]
        labels[row, : len(written)] = written
        for side, ids in zip(segments, (read, written), strict=True):
            side[row, : len(ids)] = 1
    return {
        "source": source,
        "source_segments": segments[0],
        "target": target,
        "target_segments": segments[1],
        "labels": labels,
    }
