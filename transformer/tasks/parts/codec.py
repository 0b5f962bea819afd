"""A trained codec of sound: a model, its parameters and the features that it reads, in one file.

To a model that writes sound it is what a tokenizer is to one that writes text. The task
`audio_tokens` trains and writes it; `speaking` reads it and keeps a copy in its own run.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Array, Float, Float32, Int, Int16, Int32

from transformer.composition import config_fields
from transformer.data.audio.features import LogMel
from transformer.data.audio.transcribed import Recordings
from transformer.data.reading.json_text import parse_json
from transformer.decoding.shapes import rounded_up
from transformer.decoding.vocoder import require_invertible, samples_of
from transformer.errors import ConfigError, DataError
from transformer.interop.formats.safetensors import (
    read_metadata,
    read_safetensors,
    write_safetensors,
)
from transformer.models.sound_codec import SoundCodec
from transformer.sections import made
from transformer.tasks.parts.outputs import apply
from transformer.types import ByPath, Params

CODEC_FILE = "codec.safetensors"
# Recordings that are encoded at once.
_BATCH = 32


@dataclasses.dataclass(frozen=True, eq=False)
class Codec:
    """Sound to codes and back.

    Attributes:
        model: the codec.
        params: its parameters.
        features: what it reads.
    """

    model: SoundCodec
    params: Params
    features: LogMel

    @property
    def codes_per_second(self) -> float:
        """How many codes a second of sound has."""
        return 1.0 / (self.features.seconds_per_frame * self.model.frames_per_code)

    def encode_all(
        self, recordings: Recordings, on_progress: Callable[[int], None]
    ) -> list[Int32[np.ndarray, " _"]]:
        """The codes of each recording.

        Args:
            recordings: samples at the rate of `features`.
            on_progress: called with the number of recordings that are done.
        """
        found: list[np.ndarray] = []
        for first in range(0, len(recordings), _BATCH):
            last = min(first + _BATCH, len(recordings))
            found += self.encode([recordings[index] for index in range(first, last)])
            on_progress(len(found))
        return found

    def encode(self, rows: Sequence[Int16[np.ndarray, " _"]]) -> list[Int32[np.ndarray, " _"]]:
        """The codes of a few recordings."""
        frames, counts = self.frames(rows)
        codes = np.asarray(apply(self.model, "encode", self.params, frames))
        ends = -(-counts // self.model.frames_per_code)
        return [row[:end] for row, end in zip(codes, ends, strict=False)]

    def frames(
        self, rows: Sequence[np.ndarray]
    ) -> tuple[Float[Array, "B T M"], Int[np.ndarray, " b"]]:
        """The features of recordings, and how many frames of each are valid.

        B is a multiple of `_BATCH` and T a power of two, so that few shapes are compiled.
        """
        unit = self.features.hop * self.model.frames_per_code
        length = unit * rounded_up(-(-max(map(len, rows)) // unit))
        samples = np.zeros((-(-len(rows) // _BATCH) * _BATCH, length), np.int16)
        for row, recording in zip(samples, rows, strict=False):
            row[: len(recording)] = recording
        lengths = np.zeros(len(samples), np.int32)
        lengths[: len(rows)] = [len(recording) for recording in rows]
        frames, counts = _features(self.features, samples, lengths)
        return frames, np.asarray(counts)[: len(rows)]

    def decode(self, codes: Int[np.ndarray, " R"]) -> Float[np.ndarray, "T M"]:
        """The frames that codes stand for."""
        padded = np.zeros((1, rounded_up(len(codes))), np.int32)
        padded[0, : len(codes)] = codes
        padded[0, len(codes) :] = codes[-1:]
        frames = np.asarray(apply(self.model, "decode", self.params, padded))
        return frames[0, : len(codes) * self.model.frames_per_code]

    def sound(self, codes: Int[np.ndarray, " R"]) -> Float32[np.ndarray, " n"]:
        """The sound that codes stand for, samples from -1 to 1."""
        return samples_of(self.decode(codes), self.features)

    # ------------------------------------------------------------------------------ files

    @property
    def digest(self) -> str:
        """Changes with the model, its parameters and the features."""
        digest = hashlib.sha256(self._about().encode())
        for name, array in sorted(_by_path(self.params).items()):
            digest.update(name.encode() + np.asarray(array).tobytes())
        return digest.hexdigest()[:32]

    def save(self, folder: Path) -> None:
        """Writes the file `codec.safetensors`.

        Raises:
            MissingDependencyError: if safetensors is not installed.
            WorkdirError: if it cannot be written.
        """
        write_safetensors(_by_path(self.params), folder / CODEC_FILE, {"codec": self._about()})

    def _about(self) -> str:
        """The model and the features as JSON."""
        model = {name: getattr(self.model, name) for name in config_fields(SoundCodec)}
        del model["compute"]
        return json.dumps({"model": model, "features": dataclasses.asdict(self.features)})


def read_codec(folder: Path) -> Codec:
    """The codec that a run has written.

    Raises:
        DataError: if there is none, or its file is damaged.
        MissingDependencyError: if safetensors is not installed.
    """
    path = folder / CODEC_FILE
    if not path.is_file():
        raise DataError(
            f"{folder} has no {CODEC_FILE}, which the end of a training with "
            f"configs/audio_tokens.py writes: give its run folder as --config.task.codec."
        )
    about = parse_json(read_metadata(path).get("codec", ""), path)
    try:
        model = made(SoundCodec, "model", about["model"])
        features = made(LogMel, "features", about["features"])
        require_invertible(features)
    except (LookupError, TypeError, AttributeError, ConfigError) as error:
        raise DataError(f"{path} is damaged, or no codec of sound: {error}") from None
    params = read_safetensors(path)
    frames = jnp.zeros((1, model.frames_per_code, features.num_mels))
    shapes = jax.eval_shape(model.init, jax.random.key(0), frames)["params"]
    wanted = {name: one.shape for name, one in _by_path(nn.meta.unbox(shapes)).items()}
    if wanted != {name: array.shape for name, array in params.items()}:
        raise DataError(f"{path} is damaged: its arrays are not those of its model.")
    return Codec(model, traverse_util.unflatten_dict(params, sep="/"), features)


def _by_path(params: Params) -> ByPath:
    return traverse_util.flatten_dict(params, sep="/")


@functools.partial(jax.jit, static_argnums=0)
def _features(
    features: LogMel, samples: Int16[Array, "B n"], lengths: Int[Array, "B"]
) -> tuple[Float[Array, "B T M"], Int[Array, "B"]]:
    """The features, with silence behind the valid frames."""
    frames, counts = features(samples, lengths)
    is_valid = jnp.arange(frames.shape[1])[None, :] < counts[:, None]
    quietest = jnp.min(frames, axis=(1, 2), keepdims=True)
    return jnp.where(is_valid[:, :, None], frames, quietest), counts
