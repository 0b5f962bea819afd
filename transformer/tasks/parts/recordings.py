"""The recordings of a task on speech: what is read, kept and left out."""

import fnmatch
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from transformer.data.audio.sets import read_recordings
from transformer.data.audio.transcribed import Recordings, SomeRecordings
from transformer.data.pairs.files import Sentences, split_point
from transformer.data.tokenizers.protocol import SentenceTokenizer
from transformer.errors import ConfigError, DataError


class Part(NamedTuple):
    """Recordings with the tokens of their transcripts.

    Attributes:
        recordings: the recordings.
        targets: the tokens, each transcript with its end token.
    """

    recordings: Recordings
    targets: Sentences


class Limits(NamedTuple):
    """The longest recordings and transcripts.

    Attributes:
        rate: steps of a recording in a second: samples, or frames.
        seconds: the longest recording.
        tokens: the longest transcript, its end included.
    """

    rate: float
    seconds: float
    tokens: int


def read_parts(
    path: str, rate: int, max_seconds: float, notes: list[str]
) -> tuple[Recordings, Recordings | None]:
    """The recordings of a path to train on, and those to validate on if it has any.

    Args:
        path: see `data.audio.sets.read_recordings`.
        rate: the wanted samples a second.
        max_seconds: longer recordings are left out.
        notes: sentences about what was left out are added here.

    Raises:
        DataError: if it cannot be used.
    """
    found = read_recordings(path, rate, max_seconds=max_seconds)
    notes += found.notes
    return found.train, found.validation


def held_out(whole: Recordings, pattern: str, where: str) -> tuple[Recordings, Recordings]:
    """Splits recordings by name into those to train on and those to validate on.

    Args:
        whole: all of them.
        pattern: names of recordings to validate on, with `*` for any characters.
        where: what they were read from, for messages.

    Raises:
        ConfigError: if the pattern chooses none or all.
    """
    chosen = np.array([fnmatch.fnmatchcase(name, pattern) for name in whole.names])
    if chosen.all() or not chosen.any():
        found = "all" if chosen.all() else "none"
        raise ConfigError(
            f"config.task.held_out is {pattern!r}, and {found} of the {len(whole):,} recordings of "
            f"{where} have such a name: it chooses those to validate on. Names are like "
            f"{whole.names[0]!r}."
        )
    kept, out = (np.flatnonzero(which).tolist() for which in (~chosen, chosen))
    return SomeRecordings(whole, kept), SomeRecordings(whole, out)


def last_held_out(whole: Recordings, fraction: float, where: str) -> tuple[Recordings, Recordings]:
    """Splits recordings into those to train on and the last ones, to validate on.

    Raises:
        DataError: if there is only one recording.
    """
    cut = split_point(len(whole), fraction, where)
    return SomeRecordings(whole, range(cut)), SomeRecordings(whole, range(cut, len(whole)))


def tokenized(
    tokenizer: SentenceTokenizer,
    recordings: Recordings,
    limits: Limits,
    notes: list[str],
    *,
    training: bool,
) -> Part:
    """The tokens of transcripts. Recordings to train on that are too long are left out.

    Args:
        tokenizer: of the transcripts.
        recordings: the recordings.
        limits: the longest recordings and transcripts.
        notes: sentences about what was left out are added here.
        training: whether these are recordings to train on; others must not be too long.

    Raises:
        DataError: names a recording that is too long; or if none is left.
    """
    ids = tokenizer.encode_targets(recordings.transcripts)
    seconds = np.asarray(recordings.lengths) / limits.rate
    too_long = seconds > limits.seconds
    too_many = np.array([len(tokens) >= limits.tokens for tokens in ids], bool)
    bad = np.flatnonzero(too_long | too_many)
    if len(bad) and not training:
        raise _too_long(recordings, int(bad[0]), seconds, ids, limits)
    if len(bad):
        notes.append(
            f"{len(bad):,} recordings of more than {limits.seconds:g} seconds or "
            f"{limits.tokens - 1} tokens are left out of training."
        )
        kept: Sequence[int] = np.flatnonzero(~(too_long | too_many)).tolist()
        recordings, ids = SomeRecordings(recordings, kept), [ids[index] for index in kept]
    if not len(recordings):
        raise DataError(
            f"no recording is left: all are longer than config.task.max_seconds "
            f"({limits.seconds:g}) or config.task.max_length ({limits.tokens}) allows."
        )
    return Part(recordings, Sentences(ids, tokenizer.end))


def _too_long(
    recordings: Recordings,
    index: int,
    seconds: np.ndarray,
    ids: Sequence[np.ndarray],
    limits: Limits,
) -> DataError:
    name = recordings.names[index]
    if seconds[index] > limits.seconds:
        return DataError(
            f"{name} has {seconds[index]:.1f} seconds, and config.task.max_seconds is "
            f"{limits.seconds:g}: raise it, or leave the recording out."
        )
    return DataError(
        f"the transcript of {name} has {len(ids[index])} tokens, more than the "
        f"{limits.tokens - 1} that config.task.max_length ({limits.tokens}) leaves room for: "
        f"raise it, or leave the recording out."
    )
