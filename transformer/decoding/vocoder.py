"""From spectrograms to sound: the inverse of `data.audio.features.LogMel`, as far as there is one.

Powers of all frequencies are guessed from those of the bands, and phases are found by Griffin-Lim
(`ops.audio.griffin_lim`).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from transformer.data.audio.features import LogMel
from transformer.decoding.shapes import rounded_up
from transformer.errors import ConfigError
from transformer.ops.audio import griffin_lim, mel_inverted


def require_invertible(features: LogMel) -> None:
    """Refuses features that do not determine a sound.

    Raises:
        ConfigError: names the field.
    """
    if features.scaling != "whisper":
        raise ConfigError(
            f"config.task.features.scaling is {features.scaling!r}: sound is made again only of "
            f"features with 'whisper'."
        )
    if features.pad_seconds is not None:
        raise ConfigError(
            f"config.task.features.pad_seconds is {features.pad_seconds}: sound is made again only "
            f"of features without it."
        )
    if 2 * features.hop > features.window:
        raise ConfigError(
            f"config.task.features.hop is {features.hop}: phases are found only if it is at most "
            f"half of config.task.features.window ({features.window})."
        )


def samples_of(frames: Float[np.ndarray, "T M"], features: LogMel) -> Float32[np.ndarray, " n"]:
    """A sound whose features are nearly these frames; n = T x hop, from -1 to 1.

    Args:
        frames: at least one; `features` must pass `require_invertible`.
        features: what the frames are.
    """
    # Silence behind the last frame; few lengths are compiled.
    length = rounded_up(len(frames) + 1, least=64)
    padded = np.full((1, length, frames.shape[1]), frames.min(), np.float32)
    padded[0, : len(frames)] = frames
    samples = np.asarray(_inverted(features, padded))[0, : len(frames) * features.hop]
    return np.clip(samples, -1.0, 1.0)


@functools.partial(jax.jit, static_argnums=0)
def _inverted(features: LogMel, frames: Float[Array, "B T M"]) -> Float[Array, "B n"]:
    # Whisper's scaling of logarithms to base 10, undone.
    power = 10.0 ** (4.0 * frames - 4.0)
    magnitudes = jnp.sqrt(mel_inverted(power, features.filters()))
    return griffin_lim(magnitudes, features.hop)
