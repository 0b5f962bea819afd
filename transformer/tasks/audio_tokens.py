"""Sound as tokens: a codec learns to give spectrograms again from few bits."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from transformer.data.audio.features import LogMel
from transformer.data.audio.pieces import SoundPieces
from transformer.data.audio.transcribed import Recordings, digest_of
from transformer.data.order import Batches
from transformer.decoding.vocoder import require_invertible
from transformer.limits import BatchSize, FilePath, Part, Positive
from transformer.models.sound_codec import SoundCodec
from transformer.pictures.spectrograms import Pictured, draw_spectrograms
from transformer.progress import counting
from transformer.tasks.parts import batching
from transformer.tasks.parts.codec import CODEC_FILE, Codec
from transformer.tasks.parts.protocol import Losses, Pace, Shown
from transformer.tasks.parts.sounds import (
    VOICES,
    Sounds,
    Voices,
    read_other_sounds,
    read_sounds,
    require_voices,
)
from transformer.types import Batch, Data, Json, Params

_FEATURES = LogMel(window=1024, hop=256, scaling="whisper")
# Whisper's scaling of the features makes 40 dB a step of 1.
_DECIBELS = 40.0
# How many recordings are drawn.
_DRAWN = 5


@dataclasses.dataclass(frozen=True)
class AudioTokens:
    """A codec of spectrograms by finite scalar quantisation; its fields are `config.task`.

    The loss is the mean absolute error of the bands of the spectrogram, in decibels. At the end of
    the training the codec is written to one file, `codec.safetensors`, which the task `speaking`
    reads.

    Attributes:
        train: recordings: a folder, a manifest, a `.npz` file; see `data.audio.layouts`. Their
            transcripts do not matter. Empty for strings of digits that synthetic voices read.
        voices: these voices; see `data.embedded.few_voices`.
        validation_fraction: the fraction of `train` for validation, if it has no own part.
        features: the spectrogram.
        max_seconds: longer recordings are left out.
        piece_seconds: the length of the pieces that are learned from.
        batch_size: B, pieces per step over all hosts and microbatches.
        validation_batch_size: pieces per validation batch; None takes `batch_size`.
    """

    DIMENSIONS: ClassVar[tuple[str, ...]] = ("num_features",)
    EXACT_DIMENSIONS: ClassVar[tuple[str, ...]] = ("num_features",)
    entry: ClassVar[str] = "__call__"
    model_kind: ClassVar[type] = SoundCodec

    train: FilePath = ""
    voices: Voices = VOICES
    validation_fraction: Part = 0.1
    features: LogMel = _FEATURES
    max_seconds: Positive = 30.0
    piece_seconds: Positive = 1.0
    batch_size: BatchSize = 16
    validation_batch_size: BatchSize | None = None

    def check(self) -> None:
        """Refuses features that do not determine a sound."""
        require_invertible(self.features)
        require_voices(self.train, self.voices)

    # ------------------------------------------------------------------------------- data

    def load(self, workdir: Path | None) -> Sounds:
        """Reads the recordings."""
        rate = self.features.sampling_rate
        fraction, longest = self.validation_fraction, self.max_seconds
        return read_sounds(self.train, self.voices, fraction, rate, longest)

    def load_validation(self, paths: Sequence[str], workdir: Path) -> Sounds:
        """Other recordings to validate on."""
        return read_other_sounds(paths, self.features.sampling_rate)

    def save(self, data: Sounds, workdir: Path) -> None:
        """Nothing: the codec is written when it is trained."""

    def dimensions(self, data: Sounds) -> dict[str, int]:
        """The bands of the spectrogram."""
        return {"num_features": self.features.num_mels}

    def fingerprint(self, data: Sounds) -> str:
        """Changes with the recordings."""
        return digest_of([data.train.digest, data.validation.digest], [])

    def describe(self, data: Sounds) -> str:
        """How much there is, and what was left out."""
        return data.described(self.features.sampling_rate)

    def check_model(self, model: SoundCodec) -> None:
        """All codecs can do the job."""

    def pace(self, data: Sounds) -> Pace:
        """Examples are recordings; tokens are frames."""
        return batching.pace(self, len(data.train), self.features.num_frames(self._piece))

    def batch_rows(self, data: Data) -> tuple[int]:
        """B."""
        return (self.batch_size,)

    def train_batches(self, data: Sounds, *, seed: int, num_steps: int) -> Batches:
        """A piece of each recording, at a random place."""
        pieces = SoundPieces(data.train, self._piece, moving=True)
        return batching.train_batches(self, pieces, seed=seed, num_steps=num_steps)

    def validation_batches(self, data: Sounds) -> Batches:
        """The beginning of each recording."""
        pieces = SoundPieces(data.validation, self._piece, moving=False)
        return batching.validation_batches(self, pieces)

    @property
    def _piece(self) -> int:
        """The samples of a piece: whole frames."""
        return self.features.padded_samples(round(self.piece_seconds * self.features.sampling_rate))

    # ------------------------------------------------------------------------------- loss

    def example_inputs(self, model: SoundCodec) -> tuple[Float[Array, "1 T M"]]:
        """The frames of one piece."""
        return (jnp.zeros((1, self.features.num_frames(self._piece), model.num_features)),)

    def losses(
        self, model: SoundCodec, params: Params, batch: Batch, rngs: dict[str, jax.Array]
    ) -> Losses:
        """Absolute error of each band, in decibels."""
        samples = batch["samples"]
        frames, _ = self.features(samples, jnp.full(samples.shape[0], samples.shape[1]))
        found = model.apply({"params": params}, frames, rngs=rngs)
        errors = _DECIBELS * jnp.mean(jnp.abs(found - frames), axis=-1)
        valid = (batch["valid"] > 0).astype(jnp.float32)[:, None]
        objective = jnp.sum(errors * valid)
        return Losses(objective, jnp.sum(valid) * frames.shape[1], {"loss": objective})

    # ----------------------------------------------------------------------------- scores

    def scores(self, model: SoundCodec, params: Params, data: Sounds) -> Json:
        """How many codes are used, and how evenly."""
        return self._usage(Codec(model, params, self.features), data.validation)

    def _usage(self, codec: Codec, recordings: Recordings) -> dict[str, float]:
        with counting(len(recordings), "encoded", "recordings") as update:
            codes = np.concatenate(codec.encode_all(recordings, update))
        share = np.bincount(codes, minlength=codec.model.num_codes) / len(codes)
        used = share[share > 0]
        entropy = float(-np.sum(used * np.log2(used)))
        return {"codes_used": float(len(used)), "bits_per_code": entropy}

    def show(self, model: SoundCodec, params: Params, data: Sounds, workdir: Path) -> Shown:
        """Writes the codec, and draws some spectrograms beside what became of them."""
        codec = Codec(model, params, self.features)
        codec.save(workdir)
        rows = []
        count = len(data.validation)
        for index in np.linspace(0, count - 1, min(_DRAWN, count)).astype(int).tolist():
            frames, counts = codec.frames([data.validation[index]])
            original = np.asarray(frames[0, : counts[0]])
            (codes,) = codec.encode([data.validation[index]])
            name = data.validation.names[index]
            rows.append(
                [
                    Pictured(original, f"{name}: {data.validation.transcripts[index]}"),
                    Pictured(codec.decode(codes)[: counts[0]], f"from {len(codes)} codes"),
                ]
            )
        draw_spectrograms(rows, self.features.seconds_per_frame, workdir / "codec.png")
        scores = self._usage(codec, data.validation)
        text = (
            f"{scores['codes_used']:.0f} of {model.num_codes:,} codes are used, "
            f"{scores['bits_per_code']:.2f} bits each, {codec.codes_per_second:g} codes a second.\n"
            f"The codec: {CODEC_FILE}. Spectrograms before and after: codec.png"
        )
        return Shown(text, scores)
