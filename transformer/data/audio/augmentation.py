"""How recordings are changed at random in training: speed, noise, pauses, and hidden parts."""

import dataclasses
from typing import Annotated

import numpy as np
from jaxtyping import Float32, Float64, Int16

from transformer.data.audio.transcribed import Recording
from transformer.errors import MissingDependencyError
from transformer.limits import AnyReal, Real, Share, Whole

# Noise is this much weaker than `noise_above` at most, in dB.
_NOISE_RANGE = 30.0
# Pauses are this much weaker than the recording, in dB. In 16-bit integers the weakest are zeros.
_PAUSE_LEVELS = (40.0, 110.0)
# A pause within a recording is put where so many samples, of 8,000 a second 20 ms, are quietest.
_QUIET = 160
# Spectra are warped at so many places.
_WARP_GRID = 64
_LOUDEST = 32_767


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random changes of recordings; the fields are `config.task.augmentation`.

    Speed, noise and pauses change samples before the features are computed. The masks of
    SpecAugment (Park et al. 2019) hide parts of the features: bands, or frames.

    Attributes:
        speed: recordings are played faster or slower by at most this fraction, which changes the
            pitch, too (Ko et al. 2015 use 0.1); 0 for none.
        noise_above: white noise is added, this many dB weaker than the recording or up to 30 dB
            weaker still; None for none. Features that were computed already get no noise.
        pauses: a pause is put before a recording, into it and behind it. Together they take at most
            this fraction of the room that padding leaves, so that they cost no time. They hold
            noise that is so weak that it is often digital silence. Features that were computed
            already get no pauses.
        cepstral_warp: of features that are cepstra: frequencies are multiplied by a factor that is
            at most this far from 1, as another vocal tract does (Jaitly and Hinton 2013); 0 for
            none. Samples are not changed, because `speed` changes their frequencies.
        frequency_masks: how many runs of bands are hidden.
        frequency_width: the largest fraction of the bands that one of them hides.
        time_masks: how many runs of frames are hidden.
        time_width: the largest fraction of the frames that one of them hides.
    """

    speed: Annotated[float, Real(0.0, 0.5)] = 0.0
    noise_above: AnyReal | None = None
    pauses: Share = 0.0
    cepstral_warp: Annotated[float, Real(0.0, 0.5)] = 0.0
    frequency_masks: Annotated[int, Whole(0, 100)] = 0
    frequency_width: Share = 0.3
    time_masks: Annotated[int, Whole(0, 100)] = 0
    time_width: Share = 0.1

    def longest(self, length: int) -> int:
        """The length that a recording of this length has at most, after the change of its speed."""
        return int(np.ceil(length / (1.0 - self.speed)))

    def changed(self, recording: Recording, generator: np.random.Generator, room: int) -> Recording:
        """A recording changed at random, cut at `room` samples or frames."""
        if self.speed:
            factor = generator.uniform(1.0 - self.speed, 1.0 + self.speed)
            recording = at_speed(recording, factor)
        if self.cepstral_warp and recording.ndim == 2:
            factor = generator.uniform(1.0 - self.cepstral_warp, 1.0 + self.cepstral_warp)
            recording = recording @ warp(recording.shape[1], factor).astype(recording.dtype)
        if self.noise_above is not None and recording.ndim == 1:
            weaker = self.noise_above + generator.uniform(0.0, _NOISE_RANGE)
            recording = with_noise(recording, weaker, generator)
        # Resampling may round up.
        recording = recording[:room]
        if self.pauses and recording.ndim == 1 and len(recording):
            total = generator.uniform(0.0, self.pauses) * (room - len(recording))
            recording = with_pauses(recording, int(total), generator)
        return recording

    def masks(self, generator: np.random.Generator) -> dict[str, Float32[np.ndarray, "_ 2"]]:
        """Where each hidden part begins and ends, as fractions of the bands or frames."""
        kinds = {
            "frequency": (self.frequency_masks, self.frequency_width),
            "time": (self.time_masks, self.time_width),
        }
        found = {}
        for kind, (count, largest) in kinds.items():
            if count:
                width = generator.uniform(0.0, largest, count)
                begin = generator.uniform(0.0, 1.0, count) * (1.0 - width)
                ends = np.stack([begin, begin + width], axis=1)
                found[f"{kind}_masks"] = ends.astype(np.float32)
        return found


def at_speed(recording: Recording, factor: float) -> Recording:
    """A recording played `factor` times as fast; between vectors is interpolated linearly.

    Raises:
        MissingDependencyError: if soxr is not installed, which samples need.
    """
    length = len(recording)
    if recording.ndim == 1:
        return resampled(recording, factor)
    places = np.minimum(np.arange(max(1, round(length / factor))) * factor, length - 1)
    before = places.astype(np.int64)
    after = np.minimum(before + 1, length - 1)
    share = (places - before).astype(recording.dtype)[:, None]
    return recording[before] * (1 - share) + recording[after] * share


def warp(num_cepstra: int, factor: float) -> Float64[np.ndarray, "M M"]:
    """The matrix that multiplies the frequencies of cepstra by a factor, on the mel scale.

    Cepstra c are a cosine series of the logarithm of a spectrum, c_0 + 2 sum_k c_k cos(pi k x), x
    from 0 to 1 (Davis and Mermelstein 1980); `cepstra @ warp(M, factor)` are those of the same
    series at x / factor.
    """
    places = (np.arange(_WARP_GRID) + 0.5) / _WARP_GRID
    waves = np.pi * np.arange(num_cepstra)
    series = 2.0 * np.cos(waves[:, None] * places / factor)
    series[0] = 1.0
    return series @ np.cos(waves * places[:, None]) / _WARP_GRID


def resampled(samples: Int16[np.ndarray, " _"], factor: float) -> Int16[np.ndarray, " _"]:
    """Samples with `factor` times fewer a second.

    Raises:
        MissingDependencyError: if soxr is not installed.
    """
    try:
        import soxr
    except ImportError:
        raise MissingDependencyError("soxr", "speech", "changing the speed of samples") from None
    # Of integers soxr makes integers with random noise, which no seed repeats.
    found = soxr.resample(samples.astype(np.float32), factor, 1.0)
    return np.clip(np.rint(found), -_LOUDEST, _LOUDEST).astype(np.int16)


def with_noise(
    samples: Int16[np.ndarray, " _"], weaker: float, generator: np.random.Generator
) -> Int16[np.ndarray, " _"]:
    """White noise added to samples, `weaker` dB weaker than they are on average."""
    signal = samples.astype(np.float32)
    power = float(np.mean(signal**2)) * 10.0 ** (-weaker / 10.0)
    noise = generator.standard_normal(len(signal), np.float32) * np.sqrt(power)
    return np.clip(np.rint(signal + noise), -_LOUDEST, _LOUDEST).astype(np.int16)


def with_pauses(
    samples: Int16[np.ndarray, " _"], total: int, generator: np.random.Generator
) -> Int16[np.ndarray, " _"]:
    """Samples with `total` more in three pauses: before them, where they are quiet, and behind.

    The pause within is put at the quietest place of a random third. All hold white noise, 40 to 110
    dB weaker than the samples are on average.
    """
    first, second = np.sort(generator.integers(0, total + 1, 2))
    begin = int(generator.uniform(0.0, 2.0 / 3.0) * len(samples))
    place = begin + _quietest(samples[begin : begin + len(samples) // 3])
    level = float(np.sqrt(np.mean(samples.astype(np.float32) ** 2)))
    level *= 10.0 ** (-generator.uniform(*_PAUSE_LEVELS) / 20.0)
    noise = np.rint(generator.standard_normal(total, np.float32) * level)
    pauses = np.split(np.clip(noise, -_LOUDEST, _LOUDEST).astype(np.int16), [first, second])
    return np.concatenate([pauses[0], samples[:place], pauses[1], samples[place:], pauses[2]])


def _quietest(samples: Int16[np.ndarray, " _"]) -> int:
    """The middle of the quietest stretch of samples."""
    width = min(_QUIET, len(samples))
    energy = np.concatenate([[0.0], np.cumsum(samples.astype(np.float64) ** 2)])
    return int(np.argmin(energy[width:] - energy[: len(energy) - width])) + width // 2
