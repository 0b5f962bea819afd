"""The windows of one recording: what of it is read next, and what was written so far."""

import contextlib
import functools
from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from transformer.data.audio.features import LogMel
from transformer.data.audio.transcripts import Segment, Transcript
from transformer.ops.audio import framed_log_mel, whisper_scaled


@runtime_checkable
class Sound(Protocol):
    """The samples of a recording, read in order."""

    def window(self, start: int, count: int) -> Float32[np.ndarray, " n"]:
        """Samples from a place on; fewer only at the end. No window begins before the last one."""
        ...


# Opens a recording. It is opened twice: first to find the loudest place.
Opener = Callable[[], contextlib.AbstractContextManager[Sound]]


class Frames(NamedTuple):
    """What a window is made from; see `features_of`.

    Attributes:
        samples: those of the window, and half a frame more at both ends.
        valid: how many frames are not behind the recording.
        loudest: the largest log-mel number of the recording.
    """

    samples: Float32[np.ndarray, " n"]
    valid: int
    loudest: float


class Listening:
    """A recording while it is written down.

    Attributes:
        index: its number among all recordings.
        language: the language that is spoken; empty while it is unknown.
        place: the frame at which the next window begins.
        history: tokens that the next window is told.
        segments: what was written.
        is_short: whether the recording fits into a window.
    """

    def __init__(
        self, index: int, name: str, opener: Opener, features: LogMel, num_frames: int
    ) -> None:
        """Measures a recording; `open` must follow.

        Args:
            index: see above.
            name: for the transcript.
            opener: opens it.
            features: how samples become frames.
            num_frames: of a window.

        Raises:
            DataError: if it cannot be read.
        """
        self.index, self.language, self.place, self.is_short = index, "", 0, False
        self.history: list[int] = []
        self.segments: list[Segment] = []
        self._name, self._opener, self._features = name, opener, features
        self._size = num_frames
        with opener() as sound:
            self._loudest, self._num_samples = self._measured(sound)
        self._sound: Sound | None = None

    def open(self, stack: contextlib.ExitStack) -> None:
        """Opens the recording, which the stack closes."""
        self._sound = stack.enter_context(self._opener())

    def _measured(self, sound: Sound) -> tuple[float, int]:
        """The largest log-mel number, and how many samples there are."""
        length, loudest, first = self._size * self._features.hop, -np.inf, 0
        while True:
            samples, count = self._samples(sound, first)
            loudest = max(loudest, float(_loudest(self._features, samples[None])[0]))
            if count < length:
                num_samples = first * self._features.hop + count
                self.is_short = num_samples <= length
                return loudest, num_samples
            first += self._size

    def _samples(self, sound: Sound, first: int) -> tuple[Float32[np.ndarray, " n"], int]:
        """The samples of a window with half a frame at both ends, and how many are its own."""
        hop, half = self._features.hop, self._features.window // 2
        length, start = self._size * hop, first * hop - half
        begin = max(0, start)
        found = sound.window(begin, start + half + length + half - begin)
        own = min(length, max(0, begin + len(found) - first * hop))
        # A recording that is shorter than a window is followed by silence up to a window.
        found = np.pad(found, (0, max(0, length - begin - len(found))))
        if start < begin:
            found = np.pad(found, (half, 0), mode="reflect")
        # Beyond its end it goes backwards, wherever the window begins.
        missing = half + length + half - len(found)
        found = np.pad(found, (0, min(half, missing)), mode="reflect")
        return np.pad(found, (0, max(0, missing - half)))[: length - hop + 2 * half], own

    def frames(self) -> Frames:
        """The next window."""
        assert self._sound is not None, "open() comes first"
        samples, _ = self._samples(self._sound, self.place)
        valid = self._size if self.is_short else self.num_frames
        return Frames(samples, min(self._size, valid - self.place), self._loudest)

    @property
    def num_frames(self) -> int:
        """Frames of the recording."""
        return max(1, self._num_samples // self._features.hop)

    @property
    def num_left(self) -> int:
        """Frames of the next window."""
        return min(self._size, self.num_frames - self.place)

    @property
    def seconds_done(self) -> float:
        """How much of the recording is written down."""
        done = min(self.place, self.num_frames) / self.num_frames
        return done * self._num_samples / self._features.sampling_rate

    @property
    def is_done(self) -> bool:
        """Whether all of it is written down."""
        return self.place >= self.num_frames

    def transcript(self) -> Transcript:
        """What was written."""
        seconds = self._num_samples / self._features.sampling_rate
        return Transcript(tuple(self.segments), seconds, self.language, self._name)


@functools.partial(jax.jit, static_argnums=0)
def _loudest(features: LogMel, samples: Float[Array, "B n"]) -> Float[Array, "B"]:
    return jnp.max(framed_log_mel(samples, features.filters(), features.hop), axis=(1, 2))


def features_of(
    features: LogMel,
    samples: Float[Array, "B n"],
    valid: Int[Array, "B"],
    loudest: Float[Array, "B"],
) -> Float[Array, "B T M"]:
    """The features of windows, each scaled as a part of its recording; 0 behind its end."""
    logs = framed_log_mel(samples, features.filters(), features.hop)
    is_valid = jnp.arange(logs.shape[1])[None, :] < valid[:, None]
    return jnp.where(is_valid[:, :, None], whisper_scaled(logs, loudest), 0.0)
