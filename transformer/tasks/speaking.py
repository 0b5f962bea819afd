"""Text to speech: a decoder reads words and writes the codes of their sound."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Int32

from transformer.composition import FLAT
from transformer.data.audio.saving import save_sound
from transformer.data.audio.spoken_rows import (
    Vocabulary,
    heard_in,
    read_vocabulary,
)
from transformer.data.audio.transcribed import Recordings, SomeRecordings
from transformer.decoding.sample import generate
from transformer.errors import ConfigError, DataError
from transformer.limits import (
    CountOrZero,
    FilePath,
    PartOrAll,
    Weight,
)
from transformer.ops.logits import Sampling
from transformer.pictures.spectrograms import Pictured, draw_spectrograms
from transformer.progress import counting
from transformer.tasks.parts.codec import CODEC_FILE, Codec, read_codec
from transformer.tasks.parts.losses import next_token_losses
from transformer.tasks.parts.models import TextDecoder
from transformer.tasks.parts.protocol import Losses, Shown
from transformer.tasks.parts.sounds import SoundFiles, read_other_sounds
from transformer.tasks.parts.speaking import Sound, Wish
from transformer.tasks.parts.voice_data import Spoken, SpokenLayout, VoiceData
from transformer.traced import RateOrOff
from transformer.types import Batch, Json, Params

# How many texts are spoken after training.
_SHOWN = 5
_FILES, _LAYOUT = SoundFiles(), SpokenLayout()


@dataclasses.dataclass(frozen=True)
class Speaking:
    """Learns to speak from recordings with transcripts; its fields are `config.task`.

    A row is a text, word by word, then the codes of its sound (as in Wang et al. 2023, "Neural
    codec language models", here with one code at a time). The loss counts the codes and their end.

    Attributes:
        codec: the run folder of a codec, see the task `audio_tokens`; the run keeps a copy of it.
        files: the recordings.
        train: recordings with transcripts: a folder, a manifest; see `data.audio.layouts`. Empty
            for strings of digits that synthetic voices read.
        voices: those that read, if there are no recordings; see `data.embedded.few_voices`. The
            name of the voice is the first word of a text.
        layout: how texts and codes become batches.
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
    files: Annotated[SoundFiles, FLAT] = _FILES
    layout: Annotated[SpokenLayout, FLAT] = _LAYOUT
    label_smoothing: RateOrOff = 0.0
    temperature: Weight = 0.2
    top_k: CountOrZero = 0
    top_p: PartOrAll = 1.0

    # ------------------------------------------------------------------------------- data

    def load(self, workdir: Path | None) -> VoiceData:
        """Reads the codec and the recordings, and makes codes of them."""
        if workdir is not None and (workdir / CODEC_FILE).is_file():
            codec, vocabulary = read_codec(workdir), read_vocabulary(workdir)
        else:
            codec, vocabulary = read_codec(Path(self.codec)), None
        rate, notes = codec.features.sampling_rate, []
        sounds = self.files.read(rate)
        if vocabulary is None:
            vocabulary = heard_in(sounds.train.transcripts, codec.model.num_codes)
        train = self._spoken(codec, vocabulary, sounds.train, notes)
        validation = self._spoken(codec, vocabulary, sounds.validation, notes)
        return VoiceData(self.layout, codec, vocabulary, train, validation, (*sounds.notes, *notes))

    def load_validation(self, paths: Sequence[str], workdir: Path) -> VoiceData:
        """Other recordings to validate on."""
        codec, vocabulary = read_codec(workdir), read_vocabulary(workdir)
        sounds = read_other_sounds(paths, codec.features.sampling_rate)
        notes: list[str] = []
        spoken = self._spoken(codec, vocabulary, sounds.validation, notes)
        return VoiceData(self.layout, codec, vocabulary, spoken, spoken, tuple(notes))

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
            and len(text.split()) + 2 + recordings.lengths[index] * stride < self.layout.context
        ]
        if not kept:
            raise DataError(
                f"no recording is left: each has too many words and codes for config.task.context "
                f"({self.layout.context}), no words, or words that are in no recording to train on."
            )
        if left := len(recordings) - len(kept):
            notes.append(
                f"{left:,} recordings with more than {self.layout.context} words and codes, "
                f"without words or with words that are in none to train on are left out."
            )
            recordings = SomeRecordings(recordings, kept)
        prompts = [vocabulary.prompt(text.split()) for text in recordings.transcripts]
        with counting(len(recordings), "encoded", "recordings") as update:
            codes = codec.encode_all(recordings, update)
        ended = [np.append(row, vocabulary.end).astype(np.int32) for row in codes]
        return Spoken(recordings, prompts, ended)

    def check_model(self, model: TextDecoder) -> None:
        """Refuses a model with fewer positions than rows have."""
        if self.layout.context > model.context:
            raise ConfigError(
                f"config.task.context ({self.layout.context}) is longer than config.model.context "
                f"({model.context}): the model has no positions for it."
            )

    # ------------------------------------------------------------------------------- loss

    def example_inputs(self, model: TextDecoder) -> tuple[Int[Array, "1 T"]]:
        """One row."""
        return (jnp.zeros((1, self.layout.context), jnp.int32),)

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
        if self.files.train:
            return () if wanted is None else (wanted,)
        if wanted is not None and wanted not in self.files.voices:
            raise ConfigError(f"--voice is {wanted!r}: choose from {', '.join(self.files.voices)}.")
        return (wanted or self.files.voices[0],)

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
