"""Recordings in files, or in parts of files, that are decoded when they are asked for."""

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int16

from transformer.data.audio.reading import Samples, read_audio, read_header
from transformer.data.audio.transcribed import digest_of
from transformer.errors import DataError

# Bytes at the beginning and at the end of a file by which changes are found.
_SEEN = 1 << 13


class Utterance(NamedTuple):
    """What is said in a file or in a part of one.

    Attributes:
        where: what names it, for messages: the file, or a line of a list of files.
        path: the file.
        text: what is said.
        start: where it begins, in seconds.
        end: where it ends, in seconds; None for the end of the file.
    """

    where: str
    path: Path
    text: str
    start: float = 0.0
    end: float | None = None


class FileRecordings:
    """Recordings in files, a `Recordings`; only their headers are read at once.

    Attributes:
        names: see `Recordings`.
        transcripts: see `Recordings`.
        lengths: see `Recordings`.
    """

    num_features = None

    def __init__(self, utterances: Sequence[Utterance], sampling_rate: int) -> None:
        """Reads the headers.

        Args:
            utterances: the recordings.
            sampling_rate: the wanted samples a second.

        Raises:
            DataError: if a file is missing or no recording, or does not say how long it is; names
                the file, or the line that names it.
            MissingDependencyError: if soundfile is not installed.
        """
        self._utterances, self._rate = utterances, sampling_rate
        self.names = [utterance.where for utterance in utterances]
        self.transcripts = [utterance.text for utterance in utterances]
        lengths = [_length(utterance, sampling_rate) for utterance in utterances]
        self.lengths: Int[np.ndarray, " n"] = np.array(lengths, np.int64)

    def __len__(self) -> int:
        return len(self._utterances)

    def __getitem__(self, index: int) -> Int16[np.ndarray, " n"]:
        _, path, _, start, end = self._utterances[index]
        return sixteen_bits(read_audio(path, self._rate, start=start, end=end))

    @functools.cached_property
    def digest(self) -> str:
        """Changes with a transcript, and with the size, the beginning or the end of a file.

        Files are not read whole, because sets of recordings have many gigabytes.
        """
        texts = [f"{one.text}\0{one.start}\0{one.end}" for one in self._utterances]
        return digest_of(texts, (_beginning_and_end(one.path) for one in self._utterances))


def sixteen_bits(samples: Samples) -> Int16[np.ndarray, " n"]:
    """Samples as 16-bit integers; those of files that have 16 bits are kept exactly."""
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)


def resampled_length(num_samples: int, rate: int, wanted: int) -> int:
    """How many samples a recording has at another rate."""
    return int(num_samples * wanted / rate + 0.5)


def _length(utterance: Utterance, wanted: int) -> int:
    """The samples of an utterance at the wanted rate."""
    try:
        rate, _, seconds = read_header(utterance.path)
    except DataError as error:
        if utterance.where == str(utterance.path):
            raise
        raise DataError(f"{utterance.where}: {error}") from None
    if seconds is None:
        raise DataError(
            f"{utterance.where} does not say how long it is: convert it to FLAC or WAV first."
        )
    end = seconds if utterance.end is None else utterance.end
    # As the header has it: rounding here would make a recording of the end's fraction.
    if not 0 <= utterance.start < end <= seconds + 1 / rate:
        raise DataError(
            f"{utterance.where}: the part from {utterance.start:g} to {end:g} seconds is not in "
            f"{utterance.path.name}, which has {seconds:.2f}."
        )
    return resampled_length(round(end * rate) - round(utterance.start * rate), rate, wanted)


def _beginning_and_end(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            seen = file.read(_SEEN)
            file.seek(max(0, size - _SEEN))
            return hashlib.sha256(b"%d" % size + seen + file.read(_SEEN)).digest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
