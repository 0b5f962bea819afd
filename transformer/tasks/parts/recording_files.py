"""What tasks on recordings with transcripts are composed of: what is read, and its batches."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from transformer.composition import FLAT
from transformer.data.audio.augmentation import Augmentation
from transformer.data.audio.batches import SpeechRows
from transformer.data.audio.features import LogMel
from transformer.data.audio.prompts import Prompt
from transformer.data.audio.sets import read_evaluation_recordings
from transformer.data.audio.transcribed import JoinedRecordings, Recordings, digest_of
from transformer.data.embedded.voices import spoken_digits
from transformer.data.order import Batches, Planned, bucketed
from transformer.data.tokenizers.choosing import TokenizerChoice, require_tokenizer
from transformer.data.tokenizers.protocol import SentenceTokenizer
from transformer.errors import ConfigError, DataError
from transformer.limits import FilePath, OneOf, Positive, Text, Whole
from transformer.limits import Part as Fraction
from transformer.ops.audio import utterance_scaled
from transformer.ops.spec_augment import hidden
from transformer.tasks.parts.few_shapes import FewShapes
from transformer.tasks.parts.protocol import Pace
from transformer.tasks.parts.recordings import (
    Limits,
    Part,
    held_out,
    last_held_out,
    read_parts,
    tokenized,
)
from transformer.tasks.parts.speech import SpeechReader, SpeechWriter
from transformer.tasks.parts.speech_losses import Heard
from transformer.tasks.parts.tokenizers import tokenizer_digest
from transformer.types import Batch, HostBatch

_TOKENIZER, _FEATURES, _AUGMENTATION = TokenizerChoice("character"), LogMel(), Augmentation()
_PROMPT, _SHAPES = Prompt(), FewShapes()
# The lengths of batches are multiples of this many frames.
_UNIT = 8
EMBEDDED = {"digits": spoken_digits}


@dataclasses.dataclass(frozen=True)
class RecordingFiles:
    """The part of tasks on recordings that says which ones are read, and how they are heard.

    Attributes:
        train: recordings with transcripts to train on: a folder, a manifest, a `.npz` file; see
            `data.audio.layouts`. Empty for `embedded`.
        validation: the same to validate on; empty takes those that `train` has for this, or a part
            of `train`.
        validation_fraction: the fraction of `train` for validation, if it has no own part.
        held_out: recordings of `train` to validate on, by name, with `*` for any characters;
            overrides the two fields above.
        embedded: recordings that need no file: `digits` are strings of digits that synthetic voices
            read; voices and strings for validation are others.
        tokenizer: of the transcripts.
        features: how samples become frames.
        prompt: tokens in front of every transcript.
        augmentation: how recordings to train on are changed at random.
        max_seconds: the longest recording.
        max_length: the most tokens of a transcript, its end included.
        batch_seconds: seconds of a batch, padding included, over all hosts and microbatches.
        shapes: the shapes of batches.
    """

    train: FilePath = ""
    validation: FilePath = ""
    validation_fraction: Fraction = 0.1
    held_out: Text = ""
    embedded: Annotated[str, OneOf(EMBEDDED)] = "digits"
    tokenizer: TokenizerChoice = _TOKENIZER
    features: LogMel = _FEATURES
    prompt: Prompt = _PROMPT
    augmentation: Augmentation = _AUGMENTATION
    max_seconds: Positive = 30.0
    max_length: Annotated[int, Whole(2, 1 << 20)] = 448
    batch_seconds: Positive = 64.0
    shapes: Annotated[FewShapes, FLAT] = _SHAPES

    def check(self) -> None:
        """Refuses values that cannot work."""
        if not self.train and (self.validation or self.held_out):
            given = "validation" if self.validation else "held_out"
            raise ConfigError(f"config.task.{given} needs config.task.train beside it.")
        if self.validation and self.held_out:
            raise ConfigError("give config.task.validation or config.task.held_out, not both.")

    def load(self, workdir: Path | None) -> "SpeechData":
        """Reads the recordings, makes or loads the tokenizer, and tokenizes."""
        notes: list[str] = []
        train, validation = self._read(notes)
        if train.num_features != validation.num_features:
            raise DataError(
                f"{self.validation} has {_kind(validation)} and {self.train} {_kind(train)}: give "
                f"the same for both."
            )
        tokenizer = self.tokenizer.of_run(
            SentenceTokenizer, workdir, train.transcripts, validation.transcripts
        )
        return SpeechData(
            self,
            tokenizer,
            self._tokenized(tokenizer, train, notes, training=True),
            self._tokenized(tokenizer, validation, notes, training=False),
            tuple(notes),
        )

    def _read(self, notes: list[str]) -> tuple[Recordings, Recordings]:
        rate, longest = self.features.sampling_rate, self.max_seconds
        if not self.train:
            return EMBEDDED[self.embedded](rate)
        train, validation = read_parts(self.train, rate, longest, notes)
        if self.held_out:
            whole = train if validation is None else JoinedRecordings([train, validation])
            return held_out(whole, self.held_out, self.train)
        if self.validation:
            return train, read_parts(self.validation, rate, longest, notes)[0]
        if validation is not None:
            return train, validation
        return last_held_out(train, self.validation_fraction, self.train)

    def load_validation(self, paths: Sequence[str], workdir: Path) -> "SpeechData":
        """Other recordings to validate on, with the tokenizer of a run."""
        if len(paths) != 1:
            raise ConfigError("recordings are evaluated from one folder or file: give --path.")
        tokenizer, notes = self.load_tokenizer(workdir), []
        recordings = read_evaluation_recordings(paths[0], self.features.sampling_rate)
        part = self._tokenized(tokenizer, recordings, notes, training=False)
        return SpeechData(self, tokenizer, part, part, tuple(notes))

    def load_tokenizer(self, workdir: Path) -> SentenceTokenizer:
        """The tokenizer of a run."""
        return require_tokenizer(SentenceTokenizer, workdir)

    def _tokenized(
        self,
        tokenizer: SentenceTokenizer,
        recordings: Recordings,
        notes: list[str],
        *,
        training: bool,
    ) -> Part:
        room = self.max_length - len(self.prompt.tokens(tokenizer))
        limits = Limits(self.rate(recordings), self.max_seconds, room)
        return tokenized(tokenizer, recordings, limits, notes, training=training)

    def rate(self, recordings: Recordings) -> float:
        """Steps of recordings in a second: samples, or frames."""
        if recordings.num_features is None:
            return float(self.features.sampling_rate)
        return 1.0 / self.features.seconds_per_frame

    def rows(
        self, tokenizer: SentenceTokenizer, part: Part, augmentation: Augmentation
    ) -> SpeechRows:
        """Recordings as examples, in batches of a few shapes."""
        recordings, rate = part.recordings, self.rate(part.recordings)
        lengths = recordings.lengths
        unit = _UNIT * (self.features.hop if recordings.num_features is None else 1)
        if recordings.num_features is None and self.features.pad_seconds is not None:
            # All rows are as long as the model reads.
            lengths = np.array([max(self.features.padded_samples(0), int(lengths.max()))])
        longest = round(self.batch_seconds * rate)
        buckets = self.shapes.buckets(lengths, batch_length=longest, unit=unit)
        return SpeechRows(
            recordings, part.targets, buckets, augmentation, self.prompt.tokens(tokenizer)
        )

    def example_inputs(self, model: SpeechReader) -> tuple[Array, ...]:
        """The frames of a short recording, and one token for models that write."""
        count = model.source_stride
        if self.features.pad_seconds is not None:
            count = self.features.num_frames(0)
        frames = jnp.zeros((1, count, model.num_features))
        tokens = jnp.zeros((1, 1), jnp.int32)
        return (frames, tokens) if isinstance(model, SpeechWriter) else (frames,)

    def heard(self, batch: Batch | HostBatch) -> Heard:
        """The features of a batch, with the hidden parts that it names."""
        batch = {name: jnp.asarray(values) for name, values in batch.items()}
        if "samples" in batch:
            frames, num_frames = self.features(batch["samples"], batch["num_samples"])
        else:
            frames, num_frames = batch["frames"], batch["num_frames"]
            frames = utterance_scaled(frames, num_frames)
        masks = {name: batch[name] for name in ("time_masks", "frequency_masks") if name in batch}
        frames = hidden(frames, num_frames, **masks)
        return Heard(frames, num_frames, batch["target"], batch["labels"])


@dataclasses.dataclass(frozen=True, eq=False)
class SpeechData:
    """The recordings of a job.

    Attributes:
        files: which recordings are read, and how they are heard.
        tokenizer: of the transcripts.
        train: what to train on.
        validation: what to validate on.
        notes: what was left out, as sentences.
    """

    files: RecordingFiles
    tokenizer: SentenceTokenizer
    train: Part
    validation: Part
    notes: tuple[str, ...] = ()

    def describe(self) -> str:
        """Sizes, shapes of batches, and what was left out."""
        rate = self.files.rate(self.train.recordings)
        minutes = [
            part.recordings.lengths.sum() / rate / 60.0 for part in (self.train, self.validation)
        ]
        order = self._training(seed=0, num_steps=1)[1]
        shapes = ", ".join(
            f"{bucket.rows} x {bucket.length / rate:.1f} s" for bucket in order.buckets
        )
        lines = [
            f"{len(self.train.recordings):,} recordings ({minutes[0]:.1f} minutes) to train on, "
            f"{len(self.validation.recordings):,} ({minutes[1]:.1f}) to validate on, "
            f"{self.tokenizer.vocab_size:,} tokens in the vocabulary.",
            f"Batches have {len(order.buckets)} shapes, each compiled once: {shapes}.",
            *self.notes,
        ]
        return "\n".join(lines)

    def save(self, workdir: Path) -> None:
        """Writes the tokenizer."""
        self.tokenizer.save(workdir)

    def dimensions(self) -> dict[str, int]:
        """The vocabulary, and the numbers of a frame."""
        num_features = self.train.recordings.num_features or self.files.features.num_mels
        return {"vocab_size": self.tokenizer.vocab_size, "num_features": num_features}

    def fingerprint(self) -> str:
        """Changes with the tokenizer (first part), the recordings and the transcripts."""
        digests = [part.recordings.digest for part in (self.train, self.validation)]
        return f"{tokenizer_digest(self.tokenizer)}-{digest_of(digests, [])}"

    def pace(self) -> Pace:
        """Tokens are those of the transcripts, without padding."""
        steps = self._training(seed=0, num_steps=1)[1].steps_per_epoch
        count = len(self.train.recordings)
        return Pace(count / steps, len(self.train.targets.tokens) / steps, count)

    def batch_rows(self) -> tuple[int]:
        """`rows_multiple`, which divides all numbers of rows."""
        return (self.files.shapes.rows_multiple,)

    def train_batches(self, *, seed: int, num_steps: int) -> Batches:
        """The arrays of `data.audio.batches.SpeechRows` for each step."""
        return Batches(*self._training(seed=seed, num_steps=num_steps))

    def validation_batches(self) -> Batches:
        """Every recording to validate on once, unchanged."""
        rows = self.files.rows(self.tokenizer, self.validation, Augmentation())
        return Batches(rows, bucketed(rows.recordings.lengths, rows.buckets))

    def _training(self, *, seed: int, num_steps: int) -> tuple[SpeechRows, Planned]:
        rows = self.files.rows(self.tokenizer, self.train, self.files.augmentation)
        return rows, bucketed(rows.recordings.lengths, rows.buckets, seed, num_steps)


def _kind(recordings: Recordings) -> str:
    """What recordings are, for messages."""
    if recordings.num_features is None:
        return "samples"
    return f"frames of {recordings.num_features} numbers"
