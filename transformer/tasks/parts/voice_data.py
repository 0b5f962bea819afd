"""What a voice learns from: recordings with their codes, and the batches of them."""

import dataclasses
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from jaxtyping import Int32

from transformer.composition import FLAT
from transformer.data.audio.spoken_rows import SpokenRows, Vocabulary, row_lengths
from transformer.data.audio.transcribed import Recordings, digest_of
from transformer.data.order import Batches, Planned, bucketed
from transformer.limits import Length, Whole
from transformer.tasks.parts.codec import Codec
from transformer.tasks.parts.few_shapes import FewShapes
from transformer.tasks.parts.protocol import Pace
from transformer.tasks.parts.sounds import Sounds

# The lengths of batches are multiples of this many tokens.
_UNIT = 8
_SHAPES = FewShapes()


class Spoken(NamedTuple):
    """Recordings with their codes.

    Attributes:
        recordings: the recordings.
        prompts: the tokens of their transcripts.
        codes: the codes of their sounds, each with the end token.
    """

    recordings: Recordings
    prompts: list[Int32[np.ndarray, " _"]]
    codes: list[Int32[np.ndarray, " _"]]


@dataclasses.dataclass(frozen=True)
class SpokenLayout:
    """The part of the task `speaking` that says how texts and codes become batches.

    Attributes:
        context: the longest row: words, codes and the end.
        batch_tokens: the tokens of a batch, padding included, over all hosts and microbatches.
        shapes: the shapes of batches.
    """

    context: Length = 128
    batch_tokens: Annotated[int, Whole(1, 1 << 26)] = 2048
    shapes: Annotated[FewShapes, FLAT] = _SHAPES

    def rows(self, spoken: Spoken) -> SpokenRows:
        """Rows of similar length share a batch."""
        lengths = row_lengths(spoken.prompts, spoken.codes)
        buckets = self.shapes.buckets(lengths, batch_length=self.batch_tokens, unit=_UNIT)
        # The model has no positions behind the context.
        buckets = tuple(
            bucket._replace(length=min(bucket.length, self.context)) for bucket in buckets
        )
        return SpokenRows(spoken.prompts, spoken.codes, buckets)


@dataclasses.dataclass(frozen=True, eq=False)
class VoiceData:
    """What a voice learns from.

    Attributes:
        layout: how it becomes batches.
        codec: makes the codes.
        vocabulary: the tokens.
        train: what to train on.
        validation: what to validate on.
        notes: what was left out, as sentences.
    """

    layout: SpokenLayout
    codec: Codec
    vocabulary: Vocabulary
    train: Spoken
    validation: Spoken
    notes: tuple[str, ...]

    def describe(self) -> str:
        """How much there is, and what was left out."""
        sounds = Sounds(self.train.recordings, self.validation.recordings, self.notes)
        longest = max(len(row) for part in (self.train, self.validation) for row in part.codes)
        return (
            f"{sounds.described(self.codec.features.sampling_rate)}\n"
            f"{self.vocabulary.num_codes:,} codes, {self.codec.codes_per_second:g} a second, up to "
            f"{longest - 1} in a recording; {len(self.vocabulary.words):,} words."
        )

    def save(self, workdir: Path) -> None:
        """Writes the codec and the words."""
        self.codec.save(workdir)
        self.vocabulary.save(workdir)

    def dimensions(self) -> dict[str, int]:
        """Codes, the end and words."""
        return {"vocab_size": self.vocabulary.size}

    def fingerprint(self) -> str:
        """Changes with the codec, the words and the recordings."""
        digests = [part.recordings.digest for part in (self.train, self.validation)]
        return digest_of([self.codec.digest, *self.vocabulary.words, *digests], [])

    def pace(self) -> Pace:
        """Examples are recordings; tokens are codes and ends."""
        steps = self._training(seed=0, num_steps=1)[1].steps_per_epoch
        count, codes = len(self.train.codes), sum(map(len, self.train.codes))
        return Pace(count / steps, codes / steps, count)

    def batch_rows(self) -> tuple[int]:
        """`rows_multiple`, which divides all numbers of rows."""
        return (self.layout.shapes.rows_multiple,)

    def train_batches(self, *, seed: int, num_steps: int) -> Batches:
        """The arrays of `data.audio.spoken_rows.SpokenRows` for each step."""
        return Batches(*self._training(seed=seed, num_steps=num_steps))

    def validation_batches(self) -> Batches:
        """Every recording to validate on once."""
        rows = self.layout.rows(self.validation)
        return Batches(rows, bucketed(rows.lengths, rows.buckets))

    def _training(self, *, seed: int, num_steps: int) -> tuple[SpokenRows, Planned]:
        rows = self.layout.rows(self.train)
        return rows, bucketed(rows.lengths, rows.buckets, seed, num_steps)
