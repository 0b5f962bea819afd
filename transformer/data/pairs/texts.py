"""Supervised tasks as pairs of texts: a prefix of each source says what to do.

"summarize: ...", "translate English to German: ..." (Raffel et al. 2020, section 2.4).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from transformer.data.pairs.files import Pairs, read_pairs, split_point
from transformer.data.reading.json_text import json_lines
from transformer.data.reading.text import require_characters
from transformer.errors import ConfigError, DataError
from transformer.types import Json

# More visits of a pair in an epoch than this mean a mistake in the rates.
_MOST_REPEATS = 1000


class TextPairs(NamedTuple):
    """Pairs of texts, each with the prefix that says what to do.

    Attributes:
        prefix: stands before the source.
        source: what is read, without the prefix.
        target: what is to be written.
    """

    prefix: list[str]
    source: list[str]
    target: list[str]

    def part(self, rows: Sequence[int]) -> "TextPairs":
        """Some of the pairs, in the order of `rows`."""
        return TextPairs(*([column[row] for row in rows] for column in self))

    def split(self, validation_fraction: float, where: str) -> "tuple[TextPairs, TextPairs]":
        """Pairs to train on, and the last ones for validation; see `files.split_point`."""
        count = len(self.source)
        cut = split_point(count, validation_fraction, where)
        return self.part(range(cut)), self.part(range(cut, count))

    def prompts(self) -> Pairs:
        """Sources as the model reads them, prefix first, and targets."""
        full = zip(self.prefix, self.source, strict=True)
        # An empty source stays empty: there is nothing to do.
        return Pairs([prefix + text if text else "" for prefix, text in full], self.target)


def read_text_pairs(paths: str, prefix: str, field: str) -> TextPairs:
    """Pairs of one task.

    Args:
        paths: a file of JSON lines, `.jsonl` or `.jsonl.gz`, each an object with the texts `source`
            and `target` and perhaps a `prefix` of its own; or two line-aligned files with a comma
            between, `SOURCE,TARGET`, plain or gzip.
        prefix: the prefix of pairs that have none of their own.
        field: where the paths come from, for messages.

    Raises:
        ConfigError: if these are not the paths of pairs.
        DataError: if a file cannot be used, naming the line.
    """
    if not paths.endswith((".jsonl", ".jsonl.gz")):
        if "," not in paths:
            raise ConfigError(
                f"{field} is {paths!r}: give a .jsonl file, or two files of lines, SOURCE,TARGET."
            )
        source, target = read_pairs(paths, field)
        return TextPairs([prefix] * len(source), source, target)
    lines = json_lines(paths, "'source' and 'target'")
    rows = [_row({"prefix": prefix, **values}, where) for where, values in lines]
    return TextPairs(*(list(column) for column in zip(*rows, strict=True)))


def _row(values: Json, where: str) -> tuple[str, str, str]:
    """Prefix, source and target of a line."""
    for key in ("prefix", "source", "target"):
        if key not in values:
            raise DataError(f"{where} has no {key!r}: it has {', '.join(sorted(values))}.")
        if not isinstance(values[key], str):
            raise DataError(f"{where}: {key!r} is {values[key]!r}, and should be a text.")
        require_characters(values[key], f"{where}: {key!r}")
    return values["prefix"], values["source"].strip(), values["target"].strip()


def mixed(tasks: Sequence[TextPairs], rates: Sequence[float]) -> TextPairs:
    """The pairs of several tasks, repeated until their numbers are in the ratio of the rates.

    Each pair occurs at least once; within a task, the numbers of repetitions differ by at most one.
    Raffel et
    al. 2020, section 3.5.2, compare rates.

    Args:
        tasks: each with at least one pair.
        rates: positive, one for each task; none takes every pair once.

    Raises:
        ConfigError: if a task would have to be repeated more than a thousand times.
    """
    sizes = [len(task.source) for task in tasks]
    counts = sizes
    if rates:
        most = max(size / rate for size, rate in zip(sizes, rates, strict=True))
        counts = [max(1, math.ceil(most * rate - 1e-9)) for rate in rates]
    for size, count in zip(sizes, counts, strict=True):
        if count > _MOST_REPEATS * size:
            raise ConfigError(
                f"config.task.rates would repeat {size:,} pairs {count // size:,} times in every "
                f"epoch: give that task a lower rate."
            )
    parts = [
        task.part((np.arange(count) % size).tolist())
        for task, size, count in zip(tasks, sizes, counts, strict=True)
    ]
    return TextPairs(
        *([row for part in column for row in part] for column in zip(*parts, strict=True))
    )
