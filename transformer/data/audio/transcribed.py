"""Recordings with their transcripts, whatever they are kept in."""

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, Int16

# Samples, or vectors of numbers that somebody computed from them, one for each frame.
Recording = Int16[np.ndarray, " _"] | Float[np.ndarray, "_ _"]


@runtime_checkable
class Recordings(Protocol):
    """Recordings, read when they are needed.

    Attributes:
        names: where each comes from, for messages.
        transcripts: what is said in each.
        lengths: samples of each at the wanted rate, or frames.
        num_features: M if these are vectors instead of samples; None for samples.
    """

    names: Sequence[str]
    transcripts: Sequence[str]
    lengths: Int[np.ndarray, " n"]
    num_features: int | None

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, index: int) -> Recording:
        """One of them: `lengths[index]` samples as 16-bit integers, or as many vectors.

        Raises:
            DataError: if it cannot be read.
        """
        ...

    @property
    def digest(self) -> str:
        """Changes when a recording or a transcript changes."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class HeldRecordings:
    """Recordings in memory, one after another in one array.

    Attributes:
        names: see `Recordings`.
        transcripts: see `Recordings`.
        lengths: see `Recordings`.
        values: all samples, or all vectors.
    """

    names: Sequence[str]
    transcripts: Sequence[str]
    lengths: Int[np.ndarray, " n"]
    values: Recording

    def __post_init__(self) -> None:
        if self.lengths.sum() != len(self.values):
            raise ValueError(f"{self.lengths.sum()} values expected, not {len(self.values)}.")

    @property
    def num_features(self) -> int | None:
        """M; None for samples."""
        return self.values.shape[1] if self.values.ndim == 2 else None

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Recording:
        return self.values[self._starts[index] : self._starts[index + 1]]

    @functools.cached_property
    def _starts(self) -> Int[np.ndarray, " n"]:
        return np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])

    @functools.cached_property
    def digest(self) -> str:
        """Changes when a recording or a transcript changes."""
        return digest_of(self.transcripts, [self.lengths.tobytes(), self.values.tobytes()])


class SomeRecordings:
    """Some of other recordings, in a given order."""

    def __init__(self, whole: Recordings, chosen: Sequence[int]) -> None:
        """Takes the recordings, and the numbers of those that remain."""
        self._whole, self._chosen = whole, list(chosen)
        self.names = [whole.names[index] for index in self._chosen]
        self.transcripts = [whole.transcripts[index] for index in self._chosen]
        self.lengths = np.asarray(whole.lengths)[self._chosen]
        self.num_features = whole.num_features

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> Recording:
        return self._whole[self._chosen[index]]

    @property
    def digest(self) -> str:
        """Changes when a recording, a transcript or the choice changes."""
        return digest_of([self._whole.digest, *map(str, self._chosen)], [])


class JoinedRecordings:
    """Several sets of recordings, one after another."""

    def __init__(self, sets: Sequence[Recordings]) -> None:
        """Takes at least one set; all are samples, or all vectors."""
        self._sets = list(sets)
        self._starts = np.cumsum([0, *map(len, sets)])
        self.names = [name for each in sets for name in each.names]
        self.transcripts = [text for each in sets for text in each.transcripts]
        self.lengths = np.concatenate([each.lengths for each in sets])
        self.num_features = sets[0].num_features

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Recording:
        place = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._sets[place][index - int(self._starts[place])]

    @property
    def digest(self) -> str:
        """Changes when a recording or a transcript changes."""
        return digest_of([each.digest for each in self._sets], [])


def digest_of(texts: Iterable[str], contents: Iterable[bytes]) -> str:
    """A short name for exactly these texts and contents."""
    digest = hashlib.sha256("\0".join(texts).encode())
    for content in contents:
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()[:32]
