"""Text to speech: a decoder reads words and writes the codes of their sound."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Int32

from transformer.data.audio.batches import duration_buckets
from transformer.data.audio.saving import save_sound
from transformer.data.audio.spoken_rows import (
    SpokenRows,
    Vocabulary,
    heard_in,
    read_vocabulary,
    row_lengths,
)
from transformer.data.audio.transcribed import Recordings, SomeRecordings, digest_of
from transformer.data.order import Batches, Planned, bucketed
from transformer.decoding.sample import generate
from transformer.errors import ConfigError, DataError
from transformer.limits import (
    BatchSize,
    CountOrZero,
    FilePath,
    Length,
    Part,
    PartOrAll,
    Positive,
    Weight,
    Whole,
)
from transformer.ops.logits import Sampling
from transformer.pictures.spectrograms import Pictured, draw_spectrograms
from transformer.progress import counting
from transformer.tasks.parts.codec import CODEC_FILE, Codec, read_codec
from transformer.tasks.parts.losses import next_token_losses
from transformer.tasks.parts.models import TextDecoder
from transformer.tasks.parts.protocol import Losses, Pace, Shown
from transformer.tasks.parts.sounds import (
    VOICES,
    Sounds,
    Voices,
    read_other_sounds,
    read_sounds,
    require_voices,
)
from transformer.tasks.parts.speaking import Sound, Wish
from transformer.traced import RateOrOff
from transformer.types import Batch, Data, Json, Params

# The lengths of batches are multiples of this many tokens.
_UNIT = 8
# How many texts are spoken after training.
_SHOWN = 5


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


class VoiceData(NamedTuple):
    """What a voice learns from.

    Attributes:
        codec: makes the codes.
        vocabulary: the tokens.
        train: what to train on.
        validation: what to validate on.
        notes: what was left out, as sentences.
    """

    codec: Codec
    vocabulary: Vocabulary
    train: Spoken
    validation: Spoken
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Speaking:
    """Learns to speak from recordings with transcripts; its fields are `config.task`.

    A row is a text, word by word, then the codes of its sound (as in Wang et al. 2023, "Neural
    codec language models", here with one code at a time). The loss counts the codes and their end.

    Attributes:
        codec: the run folder of a codec, see the task `audio_tokens`; the run keeps a copy of it.
        train: recordings with transcripts: a folder, a manifest; see `data.audio.layouts`. Empty
            for strings of digits that synthetic voices read.
        voices: these voices; see `data.embedded.few_voices`. The name of the voice is the first
            word of a text.
        validation_fraction: the fraction of `train` for validation, if it has no own part.
        max_seconds: longer recordings are left out.
        context: the longest row: words, codes and the end.
        batch_tokens: the tokens of a batch, padding included, over all hosts and microbatches.
        rows_multiple: the number of rows in a batch is a multiple of this; microbatches times
            devices must divide it.
        num_shapes: how many shapes batches have at most; each is compiled once.
        label_smoothing: see `ops.losses.cross_entropy`.
        temperature: how codes are chosen, unless a flag of `speak.py` changes it; see
            `ops.logits.Sampling`, also for the next two fields.
        top_k: see `ops.logits.Sampling`.
        top_p: see `ops.logits.Sampling`.
    """

    DIMENSIONS: ClassVar[tuple[str, ...]] = ("vocab_size",)
    entry: ClassVar[str] = "__call__"
    model_kind: ClassVar[type] = TextDecoder

    codec: FilePath = "runs/codec"
    train: FilePath = ""
    voices: Voices = VOICES
    validation_fraction: Part = 0.1
    max_seconds: Positive = 30.0
    context: Length = 128
    batch_tokens: Annotated[int, Whole(1, 1 << 26)] = 2048
    rows_multiple: BatchSize = 8
    num_shapes: Annotated[int, Whole(1, 64)] = 3
    label_smoothing: RateOrOff = 0.0
    temperature: Weight = 0.2
    top_k: CountOrZero = 0
    top_p: PartOrAll = 1.0

    def check(self) -> None:
        """Refuses to have nothing to learn from."""
        require_voices(self.train, self.voices)

    # ------------------------------------------------------------------------------- data

    def load(self, workdir: Path | None) -> VoiceData:
        """Reads the codec and the recordings, and makes codes of them."""
        if workdir is not None and (workdir / CODEC_FILE).is_file():
            codec, vocabulary = read_codec(workdir), read_vocabulary(workdir)
        else:
            codec, vocabulary = read_codec(Path(self.codec)), None
        rate, notes = codec.features.sampling_rate, []
        sounds = read_sounds(
            self.train, self.voices, self.validation_fraction, rate, self.max_seconds
        )
        if vocabulary is None:
            vocabulary = heard_in(sounds.train.transcripts, codec.model.num_codes)
        train = self._spoken(codec, vocabulary, sounds.train, notes)
        validation = self._spoken(codec, vocabulary, sounds.validation, notes)
        return VoiceData(codec, vocabulary, train, validation, (*sounds.notes, *notes))

    def load_validation(self, paths: Sequence[str], workdir: Path) -> VoiceData:
        """Other recordings to validate on."""
        codec, vocabulary = read_codec(workdir), read_vocabulary(workdir)
        sounds = read_other_sounds(paths, codec.features.sampling_rate)
        notes: list[str] = []
        spoken = self._spoken(codec, vocabulary, sounds.validation, notes)
        return VoiceData(codec, vocabulary, spoken, spoken, tuple(notes))

    def _spoken(
        self, codec: Codec, vocabulary: Vocabulary, recordings: Recordings, notes: list[str]
    ) -> Spoken:
        """The rows of recordings; those with unknown words or too many codes are left out."""
        known, stride = set(vocabulary.words), codec.codes_per_second / codec.features.sampling_rate
        kept = [
            index
            for index, text in enumerate(recordings.transcripts)
            if text.split()
            and known.issuperset(text.split())
            and len(text.split()) + 2 + recordings.lengths[index] * stride < self.context
        ]
        if not kept:
            raise DataError(
                f"no recording is left: each has too many words and codes for config.task.context "
                f"({self.context}), no words, or words that are in no recording to train on."
            )
        if left := len(recordings) - len(kept):
            notes.append(
                f"{left:,} recordings with more than {self.context} words and codes, without words "
                f"or with words that are in none to train on are left out."
            )
            recordings = SomeRecordings(recordings, kept)
        prompts = [vocabulary.prompt(text.split()) for text in recordings.transcripts]
        with counting(len(recordings), "encoded", "recordings") as update:
            codes = codec.encode_all(recordings, update)
        ended = [np.append(row, vocabulary.end).astype(np.int32) for row in codes]
        return Spoken(recordings, prompts, ended)

    def save(self, data: VoiceData, workdir: Path) -> None:
        """Writes the codec and the words."""
        data.codec.save(workdir)
        data.vocabulary.save(workdir)

    def dimensions(self, data: VoiceData) -> dict[str, int]:
        """Codes, the end and words."""
        return {"vocab_size": data.vocabulary.size}

    def fingerprint(self, data: VoiceData) -> str:
        """Changes with the codec, the words and the recordings."""
        digests = [part.recordings.digest for part in (data.train, data.validation)]
        return digest_of([data.codec.digest, *data.vocabulary.words, *digests], [])

    def describe(self, data: VoiceData) -> str:
        """How much there is, and what was left out."""
        sounds = Sounds(data.train.recordings, data.validation.recordings, data.notes)
        longest = max(len(row) for part in (data.train, data.validation) for row in part.codes)
        return (
            f"{sounds.described(data.codec.features.sampling_rate)}\n"
            f"{data.vocabulary.num_codes:,} codes, {data.codec.codes_per_second:g} a second, up to "
            f"{longest - 1} in a recording; {len(data.vocabulary.words):,} words."
        )

    def check_model(self, model: TextDecoder) -> None:
        """Refuses a model with fewer positions than rows have."""
        if self.context > model.context:
            raise ConfigError(
                f"config.task.context ({self.context}) is longer than config.model.context "
                f"({model.context}): the model has no positions for it."
            )

    def pace(self, data: VoiceData) -> Pace:
        """Examples are recordings; tokens are codes and ends."""
        steps = self._training(data, seed=0, num_steps=1)[1].steps_per_epoch
        count, codes = len(data.train.codes), sum(map(len, data.train.codes))
        return Pace(count / steps, codes / steps, count)

    def batch_rows(self, data: Data) -> tuple[int]:
        """`rows_multiple`, which divides all numbers of rows."""
        return (self.rows_multiple,)

    def train_batches(self, data: VoiceData, *, seed: int, num_steps: int) -> Batches:
        """The arrays of `data.audio.spoken_rows.SpokenRows` for each step."""
        return Batches(*self._training(data, seed=seed, num_steps=num_steps))

    def validation_batches(self, data: VoiceData) -> Batches:
        """Every recording to validate on once."""
        rows = self._rows(data.validation)
        return Batches(rows, bucketed(rows.lengths, rows.buckets))

    def _training(
        self, data: VoiceData, *, seed: int, num_steps: int
    ) -> tuple[SpokenRows, Planned]:
        rows = self._rows(data.train)
        return rows, bucketed(rows.lengths, rows.buckets, seed, num_steps)

    def _rows(self, spoken: Spoken) -> SpokenRows:
        """Rows of similar length share a batch."""
        buckets = duration_buckets(
            row_lengths(spoken.prompts, spoken.codes),
            batch_length=self.batch_tokens,
            rows_multiple=self.rows_multiple,
            count=self.num_shapes,
            unit=_UNIT,
        )
        # The model has no positions behind the context.
        buckets = tuple(
            bucket._replace(length=min(bucket.length, self.context)) for bucket in buckets
        )
        return SpokenRows(spoken.prompts, spoken.codes, buckets)

    # ------------------------------------------------------------------------------- loss

    def example_inputs(self, model: TextDecoder) -> tuple[Int[Array, "1 T"]]:
        """One row."""
        return (jnp.zeros((1, self.context), jnp.int32),)

    def losses(
        self, model: TextDecoder, params: Params, batch: Batch, rngs: dict[str, jax.Array]
    ) -> Losses:
        """Cross-entropy of every code and of the end."""
        return next_token_losses(model, params, batch, rngs, label_smoothing=self.label_smoothing)

    def scores(self, model: TextDecoder, params: Params, data: VoiceData) -> Json:
        """No scores besides the loss: `benchmarks/voice.py` asks a recogniser."""
        return {}

    # --------------------------------------------------------------------------- speaking

    def written(
        self,
        model: TextDecoder,
        params: Params,
        vocabulary: Vocabulary,
        prompts: Sequence[Int32[np.ndarray, " _"]],
        wish: Wish,
    ) -> list[Int32[np.ndarray, " _"]]:
        """The codes of each prompt, up to the first token that is none."""
        temperature = self.temperature if wish.temperature is None else wish.temperature
        room = model.context - max(map(len, prompts))
        chunks = generate(
            model,
            params,
            prompts,
            max_new_tokens=room,
            sampling=Sampling(temperature, self.top_k, self.top_p),
            seed=wish.seed,
        )
        made = np.zeros((len(prompts), 0), np.int32)
        for chunk in chunks:
            made = np.concatenate([made, chunk], axis=1)
            if (made >= vocabulary.num_codes).any(axis=1).all():
                break
        ends = [np.flatnonzero(row >= vocabulary.num_codes) for row in made]
        return [row[: end[0] if len(end) else None] for row, end in zip(made, ends, strict=True)]

    def speak(
        self,
        model: TextDecoder,
        params: Params,
        workdir: Path,
        texts: Sequence[str],
        wish: Wish,
    ) -> list[Sound]:
        """The sound of each text; long texts are spoken in parts.

        Raises:
            DataError: if a text has a word that the voice has not heard, or none at all.
            ConfigError: if there is no such voice.
        """
        codec, vocabulary = read_codec(workdir), read_vocabulary(workdir)
        voice = self._voice(wish.voice)
        most = vocabulary.most_words - len(voice)
        parts, owners = [], []
        for place, text in enumerate(texts):
            words = [word.strip(".,;:!?").lower() for word in text.split()]
            words = [word for word in words if word]
            if not words:
                raise DataError("there is nothing to say: give a text of at least one word.")
            vocabulary.prompt(words)
            for first in range(0, len(words), most):
                parts.append(vocabulary.prompt([*voice, *words[first : first + most]]))
                owners.append(place)
        found = self.written(model, params, vocabulary, parts, wish)
        sounds = []
        for place in range(len(texts)):
            codes = [row for row, owner in zip(found, owners, strict=True) if owner == place]
            joined = np.concatenate(codes)
            if not len(joined):
                raise DataError("the voice said nothing: give another --seed.")
            sounds.append(Sound(codec.sound(joined), codec.features.sampling_rate))
        return sounds

    def _voice(self, wanted: str | None) -> tuple[str, ...]:
        """The words in front of a text that choose the voice."""
        if self.train:
            return () if wanted is None else (wanted,)
        if wanted is not None and wanted not in self.voices:
            raise ConfigError(f"--voice is {wanted!r}: choose from {', '.join(self.voices)}.")
        return (wanted or self.voices[0],)

    def show(self, model: TextDecoder, params: Params, data: VoiceData, workdir: Path) -> Shown:
        """Speaks some texts to validate on, and draws them beside their recordings."""
        codec, recordings = data.codec, data.validation.recordings
        count = min(_SHOWN, len(recordings))
        chosen = np.linspace(0, len(recordings) - 1, count).astype(int).tolist()
        prompts = [data.validation.prompts[index] for index in chosen]
        found = self.written(model, params, data.vocabulary, prompts, Wish())
        rows = []
        for number, (index, codes) in enumerate(zip(chosen, found, strict=True), 1):
            frames, counts = codec.frames([recordings[index]])
            recorded = Pictured(
                np.asarray(frames[0, : counts[0]]), f"recorded: {recordings.transcripts[index]}"
            )
            if not len(codes):
                rows.append([recorded, Pictured(recorded.frames[:1], "spoken: nothing")])
                continue
            rows.append([recorded, Pictured(codec.decode(codes), f"spoken_{number}.wav")])
            rate = codec.features.sampling_rate
            save_sound(workdir / f"spoken_{number}.wav", codec.sound(codes), rate)
        draw_spectrograms(rows, codec.features.seconds_per_frame, workdir / "spoken.png")
        return Shown(f"{count} texts, recorded and spoken: spoken.png", {})
