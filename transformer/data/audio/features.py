"""From samples to what a model hears: the section `features` of a speech task."""

import dataclasses
from typing import Annotated

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int16

from transformer.errors import ConfigError
from transformer.limits import OneOf, Positive, Whole
from transformer.ops.audio import (
    log_mel,
    mel_filters,
    speech_scaled,
    utterance_scaled,
    whisper_scaled,
)

SCALINGS = ("whisper", "utterance", "speech")
# From -1 to 1, or as 16-bit integers; of the device or of NumPy.
Samples = (
    Float[Array, "B n"] | Float[np.ndarray, "B n"] | Int16[Array, "B n"] | Int16[np.ndarray, "B n"]
)


@dataclasses.dataclass(frozen=True)
class LogMel:
    """Log-mel features, computed on the device.

    Attributes:
        sampling_rate: of the samples, in Hz.
        num_mels: M, bands of the mel scale.
        window: length of a frame, in samples; even.
        hop: samples between frames.
        pad_seconds: every recording is padded with silence, or cut, to this length, and the silence
            is to be heard: all frames are valid. None takes the length that the batch has, rounded
            up to whole hops.
        scaling: `whisper` limits the range to 80 dB below the loudest band, over the whole
            recording; `utterance` gives each band mean 0 and variance 1 over the valid frames;
            `speech` over those with speech, so that it does not matter how long pauses are.
    """

    sampling_rate: Annotated[int, Whole(1000, 1_000_000)] = 16_000
    num_mels: Annotated[int, Whole(1, 1024)] = 80
    window: Annotated[int, Whole(2, 1 << 16)] = 400
    hop: Annotated[int, Whole(1, 1 << 16)] = 160
    pad_seconds: Positive | None = None
    scaling: Annotated[str, OneOf(SCALINGS)] = "utterance"

    def check(self) -> None:
        """Refuses values that cannot work together.

        Raises:
            ConfigError: names the field.
        """
        if self.window % 2:
            raise ConfigError(f"config.task.features.window ({self.window}) must be even.")
        if self.hop > self.window:
            raise ConfigError(
                f"config.task.features.hop is {self.hop}: it must be at most "
                f"config.task.features.window ({self.window}), or samples are never heard."
            )
        if self.pad_seconds is not None and self.padded_samples(0) <= self.window // 2:
            raise ConfigError(
                f"config.task.features.pad_seconds is {self.pad_seconds}: give more than half a "
                f"window ({self.window / 2 / self.sampling_rate} seconds)."
            )

    def padded_samples(self, num_samples: int) -> int:
        """How many samples a row of this many has after padding or cutting."""
        if self.pad_seconds is not None:
            return round(self.pad_seconds * self.sampling_rate)
        least = max(num_samples, self.window // 2 + 1)
        return -(-least // self.hop) * self.hop

    def num_frames(self, num_samples: int) -> int:
        """T for rows of this many samples."""
        return self.padded_samples(num_samples) // self.hop

    @property
    def seconds_per_frame(self) -> float:
        """The time from one frame to the next."""
        return self.hop / self.sampling_rate

    def filters(self) -> Float[np.ndarray, "F M"]:
        """The filters of the mel scale."""
        return mel_filters(self.num_mels, self.window, self.sampling_rate)

    def __call__(
        self,
        samples: Samples,
        num_samples: Int[Array, " B"] | Int[np.ndarray, " B"],
    ) -> tuple[Float[Array, "B T M"], Int[Array, " B"]]:
        """The features of recordings, and how many frames of each are valid.

        A pure function of arrays, which may be compiled. The features of a recording do not depend
        on the others in the batch, nor on its padding.

        Args:
            samples: from -1 to 1, or as 16-bit integers.
            num_samples: how many samples of each row are valid; the others count as silence.
        """
        samples, num_samples = jnp.asarray(samples), jnp.asarray(num_samples)
        if jnp.issubdtype(samples.dtype, jnp.integer):
            samples = samples.astype(jnp.float32) / 32768.0
        is_valid = jnp.arange(samples.shape[1])[None, :] < num_samples[:, None]
        samples = jnp.where(is_valid, samples, 0.0)
        length = self.padded_samples(samples.shape[1])
        missing = max(0, length - samples.shape[1])
        samples = jnp.pad(samples, ((0, 0), (0, missing)))[:, :length]
        # Behind rows of any length there is silence; Whisper's rows of one length are reflected.
        end = "zeros" if self.pad_seconds is None else "reflect"
        logs = log_mel(samples, self.filters(), self.hop, end=end)
        num_frames = jnp.minimum(-(-num_samples // self.hop), logs.shape[1])
        if self.pad_seconds is not None:
            num_frames = jnp.full_like(num_frames, logs.shape[1])
        if self.scaling == "whisper":
            return whisper_scaled(logs), num_frames
        scaled = speech_scaled if self.scaling == "speech" else utterance_scaled
        return scaled(logs, num_frames), num_frames
