"""Sound as tokens: a codec learns to give spectrograms again from few bits."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from transformer.composition import FLAT
from transformer.data.audio.features import LogMel
from transformer.data.audio.pieces import SoundPieces
from transformer.data.audio.transcribed import Recordings, digest_of
from transformer.data.order import Batches
from transformer.decoding.vocoder import require_invertible
from transformer.limits import Positive
from transformer.models.sound_codec import SoundCodec
from transformer.pictures.spectrograms import Pictured, draw_spectrograms
from transformer.progress import counting
from transformer.tasks.parts.batching import FixedRows
from transformer.tasks.parts.codec import CODEC_FILE, Codec
from transformer.tasks.parts.protocol import Losses, Pace, Shown
from transformer.tasks.parts.sounds import (
    SoundFiles,
    Sounds,
    read_other_sounds,
)
from transformer.types import Batch, Json, Params

_FILES, _ROWS = SoundFiles(), FixedRows(16)
_FEATURES = LogMel(window=1024, hop=256, scaling="whisper")
# Whisper's scaling of the features makes 40 dB a step of 1.
_DECIBELS = 40.0
# How many recordings are drawn.
_DRAWN = 5


@dataclasses.dataclass(frozen=True, eq=False)
class PieceData:
    """Recordings, of which pieces are learned.

    Attributes:
        rows: the pieces of a batch.
        features: the spectrogram.
        piece: the samples of a piece: whole frames.
        sounds: the recordings.
    """

    rows: FixedRows
    features: LogMel
    piece: int
    sounds: Sounds

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, as sentences."""
        return self.sounds.notes

    def describe(self) -> str:
        """How much there is, and what was left out."""
        return self.sounds.described(self.features.sampling_rate)

    def save(self, workdir: Path) -> None:
        """Nothing: the codec is written when it is trained."""

    def dimensions(self) -> dict[str, int]:
        """The bands of the spectrogram."""
        return {"num_features": self.features.num_mels}

    def fingerprint(self) -> str:
        """Changes with the recordings."""
        return digest_of([self.sounds.train.digest, self.sounds.validation.digest], [])

    def pace(self) -> Pace:
        """Examples are recordings; tokens are frames."""
        return self.rows.pace(len(self.sounds.train), self.features.num_frames(self.piece))

    def batch_rows(self) -> tuple[int]:
        """B."""
        return (self.rows.batch_size,)

    def train_batches(self, *, seed: int, num_steps: int) -> Batches:
        """A piece of each recording, at a random place."""
        pieces = SoundPieces(self.sounds.train, self.piece, moving=True)
        return self.rows.train_batches(pieces, seed=seed, num_steps=num_steps)

    def validation_batches(self) -> Batches:
        """The beginning of each recording."""
        pieces = SoundPieces(self.sounds.validation, self.piece, moving=False)
        return self.rows.validation_batches(pieces)


@dataclasses.dataclass(frozen=True)
class AudioTokens:
    """A codec of spectrograms by finite scalar quantisation; its fields are `config.task`.

    The loss is the mean absolute error of the bands of the spectrogram, in decibels. At the end of
    the training the codec is written to one file, `codec.safetensors`, which the task `speaking`
    reads.

    Attributes:
        files: the recordings.
        train: recordings: a folder, a manifest, a `.npz` file; see `data.audio.layouts`. Their
            transcripts do not matter. Empty for strings of digits that synthetic voices read.
        features: the spectrogram.
        piece_seconds: the length of the pieces that are learned from.
        rows: the pieces of a batch.
    """

    DIMENSIONS: ClassVar[tuple[str, ...]] = ("num_features",)
    EXACT_DIMENSIONS: ClassVar[tuple[str, ...]] = ("num_features",)
    entry: ClassVar[str] = "__call__"
    model_kind: ClassVar[type] = SoundCodec

    files: Annotated[SoundFiles, FLAT] = _FILES
    features: LogMel = _FEATURES
    piece_seconds: Positive = 1.0
    rows: Annotated[FixedRows, FLAT] = _ROWS

    def check(self) -> None:
        """Refuses features that do not determine a sound."""
        require_invertible(self.features)

    # ------------------------------------------------------------------------------- data

    def load(self, workdir: Path | None) -> PieceData:
        """Reads the recordings."""
        return self._data(self.files.read(self.features.sampling_rate))

    def load_validation(self, paths: Sequence[str], workdir: Path) -> PieceData:
        """Other recordings to validate on."""
        return self._data(read_other_sounds(paths, self.features.sampling_rate))

    def _data(self, sounds: Sounds) -> PieceData:
        return PieceData(self.rows, self.features, self._piece, sounds)

    def check_model(self, model: SoundCodec) -> None:
        """All codecs can do the job."""

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

    def scores(self, model: SoundCodec, params: Params, data: PieceData) -> Json:
        """How many codes are used, and how evenly."""
        return self._usage(Codec(model, params, self.features), data.sounds.validation)

    def _usage(self, codec: Codec, recordings: Recordings) -> dict[str, float]:
        with counting(len(recordings), "encoded", "recordings") as update:
            codes = np.concatenate(codec.encode_all(recordings, update))
        share = np.bincount(codes, minlength=codec.model.num_codes) / len(codes)
        used = share[share > 0]
        entropy = float(-np.sum(used * np.log2(used)))
        return {"codes_used": float(len(used)), "bits_per_code": entropy}

    def show(self, model: SoundCodec, params: Params, data: PieceData, workdir: Path) -> Shown:
        """Writes the codec, and draws some spectrograms beside what became of them."""
        codec = Codec(model, params, self.features)
        codec.save(workdir)
        rows = []
        count = len(data.sounds.validation)
        for index in np.linspace(0, count - 1, min(_DRAWN, count)).astype(int).tolist():
            frames, counts = codec.frames([data.sounds.validation[index]])
            original = np.asarray(frames[0, : counts[0]])
            (codes,) = codec.encode([data.sounds.validation[index]])
            name = data.sounds.validation.names[index]
            rows.append(
                [
                    Pictured(original, f"{name}: {data.sounds.validation.transcripts[index]}"),
                    Pictured(codec.decode(codes)[: counts[0]], f"from {len(codes)} codes"),
                ]
            )
        draw_spectrograms(rows, self.features.seconds_per_frame, workdir / "codec.png")
        scores = self._usage(codec, data.sounds.validation)
        text = (
            f"{scores['codes_used']:.0f} of {model.num_codes:,} codes are used, "
            f"{scores['bits_per_code']:.2f} bits each, {codec.codes_per_second:g} codes a second.\n"
            f"The codec: {CODEC_FILE}. Spectrograms before and after: codec.png"
        )
        return Shown(text, scores)
