"""Batches of recordings with the tokens of their transcripts."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Int32

from transformer.data.audio.augmentation import Augmentation
from transformer.data.audio.transcribed import Recordings
from transformer.data.order import Bucket
from transformer.data.pairs.files import Sentences
from transformer.data.source import Visit
from transformer.ops.losses import IGNORED
from transformer.types import HostBatch

# The longest target of a batch is rounded up to a multiple of this.
_TARGET_MULTIPLE = 4
_NO_AUGMENTATION = Augmentation()


@dataclasses.dataclass(frozen=True, eq=False)
class SpeechRows:
    """Recordings as examples, changed anew for each visit.

    A batch holds `samples`, int16 `[b, n]`, and `num_samples` `[b]`; or, of recordings that are
    vectors already, `frames`, float32 `[b, T, M]`, and `num_frames` `[b]`. Then `target` and
    `labels` `[b, U]`: a target begins with the end token, as those of `data.pairs`, then comes the
    prompt; `labels` is the next token where that belongs to the transcript or is its end. If parts
    are to be hidden, `frequency_masks` and `time_masks` say which; see `Augmentation.masks`.

    Attributes:
        recordings: the recordings.
        targets: the tokens of their transcripts, each with its end token.
        buckets: the shapes, by increasing length; see `duration_buckets`.
        augmentation: random changes; by default none.
        prompt: tokens in front of every transcript.
    """

    recordings: Recordings
    targets: Sentences
    buckets: tuple[Bucket, ...]
    augmentation: Augmentation = _NO_AUGMENTATION
    prompt: Int32[np.ndarray, " p"] = dataclasses.field(default_factory=lambda: np.zeros(0, "i4"))

    def __len__(self) -> int:
        return len(self.recordings)

    def batch(self, visits: Sequence[Visit]) -> HostBatch:
        """These recordings."""
        length, target_length = self._shape(visits)
        recordings, masks = [], []
        for visit in visits:
            generator = visit.generator()
            recording = self.recordings[visit.example]
            recordings.append(self.augmentation.changed(recording, generator, length))
            masks.append(self.augmentation.masks(generator))
        batch = self._heard(recordings, length)
        batch |= {name: np.stack([each[name] for each in masks]) for name in masks[0]}
        targets = [self.targets[visit.example] for visit in visits]
        return batch | lay_out_targets(targets, self.prompt, target_length)

    def padding(self, visit: Visit) -> HostBatch:
        """An empty row."""
        length, target_length = self._shape([visit])
        shape = (0,) if self.recordings.num_features is None else (0, self.recordings.num_features)
        batch = self._heard([np.zeros(shape, np.int16)], length)
        masks = self.augmentation.masks(visit.generator())
        batch |= {name: values[None] for name, values in masks.items()}
        return batch | lay_out_targets([np.zeros(0, np.int32)], self.prompt, target_length)

    def _shape(self, visits: Sequence[Visit]) -> tuple[int, int]:
        """The lengths of a batch's recordings and of its targets."""
        longest = max(int(self.recordings.lengths[visit.example]) for visit in visits)
        place = next(i for i, bucket in enumerate(self.buckets) if bucket.length >= longest)
        return self.augmentation.longest(self.buckets[place].length), self._target_lengths[place]

    @functools.cached_property
    def _target_lengths(self) -> list[int]:
        """The length of the targets in batches of each bucket."""
        edges = [bucket.length for bucket in self.buckets]
        places = np.searchsorted(edges, self.recordings.lengths)
        longest = np.zeros(len(edges), np.int64)
        np.maximum.at(longest, places, self.targets.lengths)
        return [
            int(-(-(n + len(self.prompt)) // _TARGET_MULTIPLE) * _TARGET_MULTIPLE) for n in longest
        ]

    def _heard(self, recordings: Sequence[np.ndarray], length: int) -> HostBatch:
        """The recordings of a batch, padded with zeros."""
        name, dtype, rest = "samples", np.int16, ()
        if self.recordings.num_features is not None:
            name, dtype, rest = "frames", np.float32, (self.recordings.num_features,)
        values = np.zeros((len(recordings), length, *rest), dtype)
        for row, recording in zip(values, recordings, strict=True):
            row[: len(recording)] = recording
        lengths = np.array([len(recording) for recording in recordings], np.int32)
        return {name: values, f"num_{name}": lengths}


def lay_out_targets(
    transcripts: Sequence[Int[np.ndarray, " _"]], prompt: Int32[np.ndarray, " p"], length: int
) -> HostBatch:
    """`target` and `labels`, both `[b, length]`; see `SpeechRows`.

    Args:
        transcripts: token ids, each with the end token; none at all for an empty row.
        prompt: tokens in front of each.
        length: U.
    """
    target = np.zeros((len(transcripts), length), np.int32)
    labels = np.full((len(transcripts), length), IGNORED, np.int32)
    for row, ids in enumerate(transcripts):
        if len(ids):
            count = len(prompt) + len(ids)
            target[row, :count] = [ids[-1], *prompt, *ids[:-1]]
            labels[row, len(prompt) : count] = ids
    return {"target": target, "labels": labels}


def duration_buckets(
    lengths: Int[np.ndarray, " n"], *, batch_length: int, rows_multiple: int, count: int, unit: int
) -> tuple[Bucket, ...]:
    """A few shapes that hold recordings of these lengths; each holds about as many of them.

    Args:
        lengths: of the recordings.
        batch_length: the limit for a batch, padding included.
        rows_multiple: every number of rows is a multiple of this.
        count: the most shapes.
        unit: every length is a multiple of this.
    """
    edges = np.quantile(lengths, np.arange(1, count + 1) / count, method="higher")
    edges = sorted({int(-(-edge // unit) * unit) for edge in edges})
    return tuple(
        Bucket(max(1, batch_length // edge // rows_multiple) * rows_multiple, edge)
        for edge in edges
    )
