"""Sweeps as sequences of overrides, and operations that combine them.

An override is a dict from keys of a config to values, `{"optimizer.learning_rate": 1e-3}`. A config
file defines its sweeps as functions that yield such dicts:

    def sweep_learning_rate():
        return product(
            values("optimizer.learning_rate", [1e-4, 3e-4, 1e-3]), values("train.seed", range(3))
        )
"""

import itertools
from collections.abc import Iterable, Iterator

from transformer.errors import ConfigError
from transformer.types import Json

# Values by key of a config.
Overrides = Json


def values(key: str, choices: Iterable[object]) -> Iterator[Overrides]:
    """One key with each of several values.

    Args:
        key: a config key such as `optimizer.learning_rate`.
        choices: its values.
    """
    for value in choices:
        yield {key: value}


def product(*sweeps: Iterable[Overrides]) -> Iterator[Overrides]:
    """The Cartesian product of sweeps; the last one changes fastest.

    Raises:
        ConfigError: if two of them set the same key.
    """
    for parts in itertools.product(*sweeps):
        yield _merged(parts)


def zipped(*sweeps: Iterable[Overrides]) -> Iterator[Overrides]:
    """Combines the first entries of all sweeps, then the second entries, and so on.

    Raises:
        ConfigError: if their lengths differ, or two of them set the same key.
    """
    lists = [list(sweep) for sweep in sweeps]
    lengths = [len(entries) for entries in lists]
    if len(set(lengths)) > 1:
        raise ConfigError(
            f"zipped sweeps have {', '.join(map(str, lengths))} entries: they go together one by "
            f"one, so give each the same number."
        )
    for parts in zip(*lists, strict=True):
        yield _merged(parts)


def chain(*sweeps: Iterable[Overrides]) -> Iterator[Overrides]:
    """One sweep after the other."""
    return itertools.chain(*sweeps)


def _merged(parts: tuple[Overrides, ...]) -> Overrides:
    merged: Overrides = {}
    for part in parts:
        twice = merged.keys() & part.keys()
        if twice:
            raise ConfigError(
                f"two sweeps that go together both set {', '.join(sorted(twice))}: leave one out."
            )
        merged |= part
    return merged
