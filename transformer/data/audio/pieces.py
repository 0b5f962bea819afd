"""Pieces of recordings, all of one length, to learn what sounds look like."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from transformer.data.audio.transcribed import Recordings
from transformer.data.source import Visit
from transformer.types import HostBatch


@dataclasses.dataclass(frozen=True, eq=False)
class SoundPieces:
    """One piece of each recording: `samples`, int16 `[b, n]`, and `valid` `[b]`, 0 at padding.

    Attributes:
        recordings: samples; silence follows those that are shorter than a piece.
        length: n.
        moving: whether each visit begins at a random place; otherwise at the first sample.
    """

    recordings: Recordings
    length: int
    moving: bool

    def __len__(self) -> int:
        return len(self.recordings)

    def batch(self, visits: Sequence[Visit]) -> HostBatch:
        """A piece for each visit."""
        samples = np.zeros((len(visits), self.length), np.int16)
        for row, visit in zip(samples, visits, strict=True):
            recording = self.recordings[visit.example]
            room, start = len(recording) - self.length, 0
            if self.moving and room > 0:
                start = int(visit.generator().integers(room + 1))
            piece = recording[start : start + self.length]
            row[: len(piece)] = piece
        return {"samples": samples, "valid": np.ones(len(visits), np.int32)}

    def padding(self, visit: Visit) -> HostBatch:
        """A piece of silence that does not count."""
        return {"samples": np.zeros((1, self.length), np.int16), "valid": np.zeros(1, np.int32)}
