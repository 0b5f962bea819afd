"""Sound as numbers: frames, short-time Fourier transform, mel scale, and back to sound.

Letters: n samples, T frames, F frequencies (window / 2 + 1), M bands of the mel scale. Samples are
pressures from -1 to 1. Frame t is centred at sample t x hop.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from transformer.ops.threefry import without_loop

# Slaney's mel scale is linear up to this frequency, in Hz, and logarithmic above it.
_CORNER = 1000.0
_HZ_PER_MEL = 200.0 / 3.0
_MELS_PER_E = 27.0 / math.log(6.4)
# The smallest power, before its logarithm is taken.
_FLOOR = 1e-10
# The range of a recording, and that of speech in it, in powers of ten.
_RANGE, _SPEECH_RANGE = 8.0, 4.0


def frames(samples: Float[Array, "B n"], window: int, hop: int) -> Float[Array, "B T window"]:
    """Cuts samples into overlapping frames, the first at sample 0: T = (n - window) / hop + 1.

    Raises:
        ValueError: if there are fewer samples than one frame has.
    """
    if samples.shape[1] < window:
        raise ValueError(f"a frame has {window} samples, and there are only {samples.shape[1]}.")
    count = (samples.shape[1] - window) // hop + 1
    # In parts of the largest common size, frames are slices, which is faster than a gather.
    part = math.gcd(window, hop)
    length = (count - 1) * hop + window
    parts = samples[:, :length].reshape(samples.shape[0], -1, part)
    stride, last = hop // part, (count - 1) * hop // part + 1
    slices = [parts[:, first : first + last : stride] for first in range(window // part)]
    return jnp.concatenate(slices, axis=-1)


def overlap_added(framed: Float[Array, "B T window"], hop: int) -> Float[Array, "B n"]:
    """Adds overlapping frames: the transpose of `frames`."""
    batch_size, count, window = framed.shape
    part = math.gcd(window, hop)
    stride, last = hop // part, (count - 1) * hop // part + 1
    parts = jnp.zeros((batch_size, last - 1 + window // part, part), framed.dtype)
    for first in range(window // part):
        piece = framed[:, :, first * part : (first + 1) * part]
        parts = parts.at[:, first : first + last : stride].add(piece)
    return parts.reshape(batch_size, -1)


def hann(window: int) -> Float[np.ndarray, " window"]:
    """The periodic Hann window: shifted copies at half its length add up to 1."""
    return np.asarray(0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(window) / window), np.float32)


def short_time_fourier(
    samples: Float[Array, "B n"], window: int, hop: int, *, end: str = "reflect"
) -> Array:
    """The short-time Fourier transform, complex, `[B, T, F]` with T = n / hop + 1.

    Args:
        samples: more than half a window of them.
        window: length of a frame, in samples; even.
        hop: samples between frames.
        end: what lies behind the last sample: its `reflect`ion or `zeros`. The reflection of the
            first samples lies before them.
    """
    padded = _extended(samples, window, end)
    return jnp.fft.rfft(frames(padded, window, hop) * hann(window))


def _extended(samples: Float[Array, "B n"], window: int, end: str) -> Float[Array, "B _"]:
    """Half a window more at both ends."""
    half = window // 2
    padded = jnp.pad(samples, ((0, 0), (half, 0)), mode="reflect")
    behind = "reflect" if end == "reflect" else "constant"
    return jnp.pad(padded, ((0, 0), (0, half)), mode=behind)


def inverse_short_time_fourier(spectrum: Array, window: int, hop: int) -> Float[Array, "B n"]:
    """The samples whose transform is nearest to the given one; n = (T - 1) x hop.

    Frames are windowed again and added, divided by the sum of squared windows (Griffin and Lim
    1984, equation 6).

    Args:
        spectrum: complex, `[B, T, F]`.
        window: length of a frame, in samples.
        hop: samples between frames; at most half of the window.
    """
    framed = jnp.fft.irfft(spectrum, n=window) * hann(window)
    total = overlap_added(framed, hop) / _squared_windows(framed.shape[1], window, hop)
    half = window // 2
    return total[:, half : half + (framed.shape[1] - 1) * hop]


@functools.lru_cache(maxsize=8)
def _squared_windows(count: int, window: int, hop: int) -> Float[np.ndarray, " n"]:
    """The sum of the squared windows of all frames at each sample, never quite 0.

    By NumPy: XLA takes seconds to fold the same sum into a constant.
    """
    total = np.zeros((count - 1) * hop + window, np.float32)
    for first in range(0, count * hop, hop):
        total[first : first + window] += np.square(hann(window))
    return np.maximum(total, 1e-8)


def to_mel(hertz: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Slaney's mel scale (Auditory Toolbox, 1998): linear below 1 kHz, then logarithmic."""
    hertz = np.asarray(hertz, np.float64)
    above = _CORNER / _HZ_PER_MEL + np.log(np.maximum(hertz, 1e-9) / _CORNER) * _MELS_PER_E
    return np.where(hertz < _CORNER, hertz / _HZ_PER_MEL, above)


def to_hertz(mel: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """The inverse of `to_mel`."""
    mel = np.asarray(mel, np.float64)
    corner = _CORNER / _HZ_PER_MEL
    above = _CORNER * np.exp(np.maximum(mel - corner, 0.0) / _MELS_PER_E)
    return np.where(mel < corner, mel * _HZ_PER_MEL, above)


def mel_filters(num_mels: int, window: int, sampling_rate: int) -> Float[np.ndarray, "F M"]:
    """Triangular filters, equally wide on Slaney's mel scale, from 0 to half the sampling rate.

    The peak of a triangle is 2 / its width in Hz, so that all bands of white noise are equal.

    Args:
        num_mels: M.
        window: length of a frame, in samples.
        sampling_rate: in Hz.
    """
    frequencies = np.arange(window // 2 + 1) * sampling_rate / window
    corners = to_hertz(np.linspace(0.0, to_mel(np.asarray(sampling_rate / 2)), num_mels + 2))
    lower, centre, upper = corners[:-2], corners[1:-1], corners[2:]
    rising = (frequencies[:, None] - lower) / (centre - lower)
    falling = (upper - frequencies[:, None]) / (upper - centre)
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return np.asarray(triangles * 2.0 / (upper - lower), np.float32)


def log_mel(
    samples: Float[Array, "B n"],
    filters: Float[np.ndarray, "F M"],
    hop: int,
    *,
    end: str = "reflect",
) -> Float[Array, "B T M"]:
    """Logarithms to base 10 of the power in each band of the mel scale; T = n / hop.

    Args:
        samples: more than half a window of them.
        filters: from `mel_filters`; they determine the window.
        hop: samples between frames.
        end: see `short_time_fourier`, whose last frame is left out.
    """
    window = 2 * (filters.shape[0] - 1)
    return framed_log_mel(_extended(samples, window, end)[:, :-hop], filters, hop)


def framed_log_mel(
    samples: Float[Array, "B n"], filters: Float[np.ndarray, "F M"], hop: int
) -> Float[Array, "B T M"]:
    """The same of samples that hold half a window more at both ends; see `frames`."""
    window = 2 * (filters.shape[0] - 1)
    spectrum = jnp.fft.rfft(frames(samples, window, hop) * hann(window))
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    bands = jnp.matmul(power, filters, precision=jax.lax.Precision.HIGHEST)
    return jnp.log10(jnp.maximum(bands, _FLOOR))


def whisper_scaled(
    logs: Float[Array, "B T M"], loudest: Float[Array, " B"] | None = None
) -> Float[Array, "B T M"]:
    """Log-mel as Whisper reads it (Radford et al. 2022, section 2.2, and the published code).

    What is more than 80 dB below the loudest band of the recording is raised to that; then the
    numbers are shifted and scaled to lie near -1 to 1.

    Args:
        logs: from `log_mel`.
        loudest: the largest number of each whole recording; None takes that of `logs`.
    """
    if loudest is None:
        loudest = jnp.max(logs, axis=(1, 2))
    return (jnp.maximum(logs, loudest[:, None, None] - _RANGE) + 4.0) / 4.0


def utterance_scaled(
    logs: Float[Array, "B T M"], num_frames: Int[Array, " B"]
) -> Float[Array, "B T M"]:
    """Log-mel with mean 0 and variance 1 in each band over the valid frames; others become 0.

    Args:
        logs: from `log_mel`.
        num_frames: valid frames of each recording.
    """
    valid = jnp.arange(logs.shape[1])[None, :] < num_frames[:, None]
    return _standardised(logs, valid, valid)


def speech_scaled(
    logs: Float[Array, "B T M"], num_frames: Int[Array, " B"]
) -> Float[Array, "B T M"]:
    """The same with mean and variance over the frames with speech, so that pauses do not count.

    What is more than 80 dB below the loudest band of the recording is raised to that. Frames with
    speech are those whose loudest band is at most 40 dB below it.

    Args:
        logs: from `log_mel`.
        num_frames: valid frames of each recording.
    """
    valid = jnp.arange(logs.shape[1])[None, :] < num_frames[:, None]
    loudness = jnp.where(valid, jnp.max(logs, axis=2), -jnp.inf)
    loudest = jnp.max(loudness, axis=1, keepdims=True, initial=math.log10(_FLOOR))
    logs = jnp.maximum(logs, loudest[:, :, None] - _RANGE)
    return _standardised(logs, loudness >= loudest - _SPEECH_RANGE, valid)


def _standardised(
    logs: Float[Array, "B T M"], counted: Bool[Array, "B T"], valid: Bool[Array, "B T"]
) -> Float[Array, "B T M"]:
    """Mean 0 and variance 1 of each band over the counted frames; invalid ones become 0."""
    counted, valid = counted[:, :, None], valid[:, :, None]
    count = jnp.maximum(jnp.sum(counted, axis=1, keepdims=True), 1)
    mean = jnp.sum(jnp.where(counted, logs, 0.0), axis=1, keepdims=True) / count
    centred = jnp.where(valid, logs - mean, 0.0)
    squares = jnp.where(counted, jnp.square(centred), 0.0)
    variance = jnp.sum(squares, axis=1, keepdims=True) / count
    return centred * jax.lax.rsqrt(variance + 1e-5)


def mel_inverted(
    power: Float[Array, "B T M"], filters: Float[np.ndarray, "F M"]
) -> Float[Array, "B T F"]:
    """Powers of all frequencies that explain the powers of the bands: a rough inverse.

    Least squares by the pseudoinverse, negative powers set to 0.
    """
    inverse = np.linalg.pinv(np.asarray(filters, np.float64)).astype(np.float32)
    return jnp.maximum(jnp.matmul(power, inverse), 0.0)


class _Guess(NamedTuple):
    """The two last spectra of Griffin-Lim."""

    consistent: Array
    accelerated: Array


def griffin_lim(
    magnitudes: Float[Array, "B T F"],
    hop: int,
    *,
    steps: int = 32,
    momentum: float = 0.99,
    seed: int = 0,
) -> Float[Array, "B n"]:
    """Samples whose transform has nearly these magnitudes; phases are found, n = (T - 1) x hop.

    Alternating projections (Griffin and Lim 1984, section III) with momentum (Perraudin et al.
    2013, "A fast Griffin-Lim algorithm"), from random phases.

    Args:
        magnitudes: at least 2 frames; F determines the window.
        hop: samples between frames; at most half of the window.
        steps: how often phases are improved.
        momentum: 0 is the method of 1984.
        seed: of the random phases.
    """
    window = 2 * (magnitudes.shape[2] - 1)
    key = without_loop(jax.random.key(seed))
    phases = jax.random.uniform(key, magnitudes.shape, maxval=2.0 * jnp.pi)
    begin = magnitudes * jnp.exp(1j * phases)

    def step(guess: _Guess, _: None) -> tuple[_Guess, None]:
        nearest = guess.accelerated
        nearest = magnitudes * nearest / jnp.maximum(jnp.abs(nearest), 1e-12)
        samples = inverse_short_time_fourier(nearest, window, hop)
        consistent = short_time_fourier(samples, window, hop)
        faster = consistent + momentum * (consistent - guess.consistent)
        return _Guess(consistent, faster), None

    guess, _ = jax.lax.scan(step, _Guess(begin, begin), None, length=steps)
    final = magnitudes * jnp.exp(1j * jnp.angle(guess.accelerated))
    return inverse_short_time_fourier(final, window, hop)


def mu_law_encoded(samples: Float[Array, "..."], levels: int = 256) -> Int[Array, "..."]:
    """Samples as whole numbers below `levels`, finer near silence (ITU-T G.711, continuous form).

    Args:
        samples: from -1 to 1; louder ones are cut.
        levels: how many numbers there are.
    """
    mu = levels - 1
    clipped = jnp.clip(samples, -1.0, 1.0)
    squeezed = jnp.sign(clipped) * jnp.log1p(mu * jnp.abs(clipped)) / math.log1p(mu)
    return jnp.floor((squeezed + 1.0) / 2.0 * mu + 0.5).astype(jnp.int32)


def mu_law_decoded(codes: Int[Array, "..."], levels: int = 256) -> Float[Array, "..."]:
    """The samples that `mu_law_encoded` codes stand for."""
    mu = levels - 1
    squeezed = 2.0 * codes.astype(jnp.float32) / mu - 1.0
    return jnp.sign(squeezed) * jnp.expm1(jnp.abs(squeezed) * math.log1p(mu)) / mu
