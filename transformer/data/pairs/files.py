"""Pairs of sentences: from line-aligned files or made up, and as token ids."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from transformer.data.embedded.phrases import phrase_pairs, split_phrases
from transformer.data.embedded.sequences import sequence_pairs
from transformer.data.reading.text import read_text
from transformer.data.tokenizers.protocol import SentenceTokenizer
from transformer.errors import ConfigError, DataError


class Pairs(NamedTuple):
    """Source and target sentences, line by line."""

    source: list[str]
    target: list[str]


def read_pairs(paths: str | Sequence[str], field: str) -> Pairs:
    """Two line-aligned UTF-8 files, plain or gzip.

    Args:
        paths: two paths, or one string with both separated by a comma.
        field: where the paths come from, for messages.

    Raises:
        ConfigError: if there are not two paths.
        DataError: if a file cannot be used, or they have different numbers of lines.
    """
    paths = [path.strip() for path in paths.split(",")] if isinstance(paths, str) else list(paths)
    if len(paths) != 2 or not all(paths):
        raise ConfigError(f"{field} is {','.join(paths)!r}: give two files, SOURCE,TARGET.")
    source, target = (read_lines(path) for path in paths)
    if len(source) != len(target):
        raise DataError(
            f"{paths[0]} has {len(source):,} lines and {paths[1]} has {len(target):,}: line i of "
            f"one must be the translation of line i of the other."
        )
    return Pairs(source, target)


def read_lines(path: str | Path) -> list[str]:
    """The lines of a text file, plain or gzip, without white space around them.

    Only line feeds end a line: other separators of Unicode may stand inside of sentences.
    """
    text = read_text(path)
    return [line.strip() for line in text.removesuffix("\n").split("\n")]


class Sentences:
    """Token ids of many sentences in one array, each sentence ended by the end token.

    Attributes:
        tokens: all of them, one after another.
        starts: the place where each sentence begins, and the end of the last one.
    """

    def __init__(self, sentences: Sequence[np.ndarray], end: int) -> None:
        lengths = np.array([len(ids) + 1 for ids in sentences], np.int64)
        self.starts = np.concatenate([[0], np.cumsum(lengths)])
        self.tokens = np.full(self.starts[-1], end, np.int32)
        for ids, start in zip(sentences, self.starts, strict=False):
            self.tokens[start : start + len(ids)] = ids

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        return self.tokens[self.starts[index] : self.starts[index + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each sentence, the end token included."""
        return np.diff(self.starts)


class TokenPairs(NamedTuple):
    """Pairs as token ids."""

    source: Sentences
    target: Sentences

    @property
    def lengths(self) -> np.ndarray:
        """The length of the longer side of each pair."""
        return np.maximum(self.source.lengths, self.target.lengths)


class PairTexts(NamedTuple):
    """The pairs of a job as text.

    Attributes:
        train: pairs to train on.
        validation: pairs to validate on.
        longer: pairs longer than any in training; only of made-up sequences.
        groups: the kind of each validation pair, if there are several; else empty.
    """

    train: Pairs
    validation: Pairs
    longer: Pairs = Pairs([], [])
    groups: tuple[str, ...] = ()


def columns(pairs: Sequence[tuple[str, str]]) -> Pairs:
    """Pairs from one list as two lists."""
    return Pairs([source for source, _ in pairs], [target for _, target in pairs])


def made_up_pairs(
    kind: str, *, count: int, languages: tuple[str, str], longest: int, validation_fraction: float
) -> tuple[Pairs, Pairs, Pairs]:
    """Pairs that need no file.

    Args:
        kind: `phrases`, or one of `sequences.KINDS`.
        count: the number of pairs, including validation.
        languages: the languages of phrases.
        longest: the length of the longest sequence in training.
        validation_fraction: the fraction that is kept for validation.

    Returns:
        Pairs to train on, pairs to validate on, and sequences up to half as long again as those
        (none for phrases). No source is in two of them.
    """
    if kind == "phrases":
        pairs, longer = phrase_pairs(*languages, count=count, seed=0), []
    else:
        pairs = sequence_pairs(kind, count=count, min_length=1, max_length=longest, seed=0)
        longer = sequence_pairs(
            kind, count=200, min_length=longest + 1, max_length=3 * longest // 2, seed=1
        )
    train, validation = split_phrases(pairs, validation_fraction)
    return columns(train), columns(validation), columns(longer)


def split_pairs(pairs: Pairs, validation_fraction: float, where: str) -> tuple[Pairs, Pairs]:
    """Pairs to train on, and the last ones for validation; see `split_point`."""
    cut = split_point(len(pairs.source), validation_fraction, where)
    kept = Pairs(pairs.source[:cut], pairs.target[:cut])
    return kept, Pairs(pairs.source[cut:], pairs.target[cut:])


def split_point(count: int, validation_fraction: float, where: str) -> int:
    """How many of the pairs are for training; at least one of them, and not all.

    Raises:
        DataError: if there is only one pair.
    """
    if count < 2:
        raise DataError(f"{where} has one pair: give more, or config.task.validation.")
    return min(max(1, round(count * (1.0 - validation_fraction))), count - 1)


def without_empty(pairs: Pairs, notes: list[str]) -> Pairs:
    """The pairs that have text on both sides; what was left out is added to `notes`.

    Raises:
        DataError: if there is none.
    """
    full = [(source, target) for source, target in zip(*pairs, strict=True) if source and target]
    if not full:
        raise DataError("no training pair has text on both sides: there is nothing to learn from.")
    if len(full) < len(pairs.source):
        empty = len(pairs.source) - len(full)
        notes.append(f"{empty:,} training pairs with an empty side are left out.")
    return columns(full)


def tokenize_pairs(
    tokenizer: SentenceTokenizer,
    pairs: Pairs,
    *,
    max_length: int,
    too_long: str,
    training: bool,
    notes: list[str],
    max_target_length: int | None = None,
    cut_sources: bool = False,
) -> TokenPairs:
    """The tokens of pairs.

    Args:
        tokenizer: the tokenizer of both sides.
        pairs: text.
        max_length: the maximum number of tokens of a sentence, including its end.
        too_long: `refuse` longer pairs, or `truncate` them; in training they are left out, because
            the beginnings of two sentences need not be translations of each other.
        training: whether these are training pairs.
        notes: sentences about what was left out or cut are added here.
        max_target_length: the maximum number of tokens of a target, if that is another number.
        cut_sources: whether training pairs with a long source are kept and their sources cut.

    Raises:
        DataError: if a pair is too long and refused, or none is left.
    """
    source = tokenizer.encode_all(pairs.source)
    target = tokenizer.encode_targets(pairs.target)
    part = "training" if training else "validation"
    rooms = (max_length - 1, (max_target_length or max_length) - 1)
    allowed = " and ".join(f"{room}" for room in dict.fromkeys(rooms))
    cut = sum(len(ids) > rooms[0] for ids in source)
    if cut and cut_sources and too_long != "refuse":
        source = [ids[: rooms[0]] for ids in source]
        notes.append(f"{cut:,} {part} sources are cut to {rooms[0]} tokens.")
        cut = 0
    pairs_of_ids = zip(source, target, strict=True)
    fits = [len(a) <= rooms[0] and len(b) <= rooms[1] for a, b in pairs_of_ids]
    long = [index for index, whole in enumerate(fits) if not whole]
    if long and too_long == "refuse":
        counts = len(source[long[0]]), len(target[long[0]])
        field = "max_target_length" if max_target_length else "max_length"
        raise _too_long(f"{part} pair {long[0] + 1}", counts, rooms, ("max_length", field))
    if long and training:
        notes.append(f"{len(long):,} training pairs of more than {allowed} tokens are left out.")
        source, target = (
            [ids for ids, whole in zip(side, fits, strict=True) if whole]
            for side in (source, target)
        )
    elif long:
        notes.append(f"{len(long):,} {part} pairs are cut to {allowed} tokens for the loss.")
        if cut:
            notes.append(
                f"{cut:,} {part} sources are cut so for outputs, too: config.task.max_length "
                f"({max_length}) counts their ends."
            )
    if not source:
        raise DataError(f"every {part} pair is longer than {allowed} tokens: raise max_length.")
    sides = (
        [ids[:room] for ids in side] for side, room in zip((source, target), rooms, strict=True)
    )
    return TokenPairs(*(Sentences(side, tokenizer.end) for side in sides))


def _too_long(
    which: str, counts: tuple[int, int], rooms: tuple[int, int], fields: tuple[str, str]
) -> DataError:
    """The error for a pair that does not fit; it names the side that exceeds its limit by more."""
    sides = zip(counts, rooms, fields, strict=True)
    count, room, field = max(sides, key=lambda side: side[0] - side[1])
    return DataError(
        f"{which} has {count} tokens, more than the {room} that config.task.{field} leaves room "
        f"for: raise it, or allow --config.task.too_long=truncate."
    )
