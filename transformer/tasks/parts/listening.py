"""Recordings of any length as text, by models that hear a few seconds at once."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from transformer.data.audio.features import LogMel
from transformer.data.audio.reading import OpenRecording
from transformer.data.audio.transcripts import Segment, Transcript
from transformer.data.tokenizers.protocol import SentenceTokenizer
from transformer.decoding.ctc import align
from transformer.decoding.recognize import Found, Recognition, encoded, recognize
from transformer.decoding.shapes import rounded_up
from transformer.errors import ConfigError
from transformer.tasks.parts.speech import SpeechAligner, SpeechReader
from transformer.types import Params

# Loudness is measured over so many seconds, and a piece ends where it is least.
_LOUDNESS_SECONDS = 0.2
# The shortest piece that a batch is made for, in seconds.
_SHORTEST = 0.5


def require_samples(model: SpeechReader, features: LogMel) -> None:
    """Refuses a model that hears no samples.

    Raises:
        ConfigError: says what it hears.
    """
    if model.num_features != features.num_mels:
        raise ConfigError(
            f"the run was trained on frames of {model.num_features} numbers that somebody "
            f"computed, not on samples: it cannot hear recordings."
        )


class Piece(NamedTuple):
    """A part of a recording: where it begins, and its samples."""

    start: int
    samples: Float32[np.ndarray, " n"]


class Listener(NamedTuple):
    """A model and how it is used.

    Attributes:
        model: the model.
        params: its parameters.
        tokenizer: of the transcripts.
        features: how samples become frames.
        how: how texts are found.
        max_seconds: the longest piece that the model hears at once.
        batch_size: how many pieces are heard together.
    """

    model: SpeechReader
    params: Params
    tokenizer: SentenceTokenizer
    features: LogMel
    how: Recognition
    max_seconds: float
    batch_size: int

    def transcript(self, path: Path, on_progress: Callable[[float], None]) -> Transcript:
        """The transcript of a recording, a segment for each piece of it.

        Args:
            path: the file.
            on_progress: called with the seconds that are done.

        Raises:
            DataError: if the file cannot be read.
        """
        rate, segments, done = self.features.sampling_rate, [], 0
        with OpenRecording(path, rate) as recording:
            cut = pieces(recording, round(self.max_seconds * rate))
            while some := list(itertools.islice(cut, self.batch_size)):
                segments += self._segments(some)
                done = some[-1].start + len(some[-1].samples)
                on_progress(done / rate)
        return Transcript(tuple(segments), done / rate, name=str(path))

    def _segments(self, some: list[Piece]) -> Iterator[Segment]:
        """What is said in pieces; nothing for those where nothing is."""
        rate = self.features.sampling_rate
        longest = max(len(piece.samples) for piece in some)
        length = rounded_up(longest, round(self.max_seconds * rate), least=_power(_SHORTEST * rate))
        rows = rounded_up(len(some), self.batch_size, least=1)
        samples, counts = np.zeros((rows, length), np.float32), np.zeros(rows, np.int32)
        for row, piece in enumerate(some):
            samples[row, : len(piece.samples)] = piece.samples
            counts[row] = len(piece.samples)
        frames, num_frames = self.features(jnp.asarray(samples), jnp.asarray(counts))
        found = recognize(self.model, self.params, frames, num_frames, self.how)
        ends = [(0.0, count / rate) for count in counts.tolist()]
        if isinstance(self.model, SpeechAligner):
            log_probs = np.asarray(encoded(self.model, self.params, frames, num_frames)[1])
            lengths = np.asarray(self.model.memory_lengths(num_frames))
            ends = [
                self._ends(values[:count], one) or end
                for values, count, one, end in zip(log_probs, lengths, found, ends, strict=True)
            ]
        for piece, one, (begin, end) in zip(some, found, ends, strict=False):
            text = self.tokenizer.decode(one.ids)
            if text:
                start = piece.start / rate
                tokens = tuple(one.ids.tolist())
                details = {"log_prob": one.score}
                yield Segment(start + begin, start + end, f" {text}", tokens, details)

    def _ends(self, log_probs: np.ndarray, found: Found) -> tuple[float, float] | None:
        """Where the first token begins and the last one ends, in seconds; None without tokens."""
        spans = align(log_probs, found.ids.tolist(), log_probs.shape[1] - 1)
        if not spans:
            return None
        second = self.features.seconds_per_frame * self.model.source_stride
        return spans[0].begin * second, spans[-1].end * second


def pieces(recording: OpenRecording, longest: int) -> Iterator[Piece]:
    """Cuts a recording where it is quietest, into pieces of at most `longest` samples.

    Every piece but the last is at least half as long.
    """
    start, window = 0, max(1, round(_LOUDNESS_SECONDS * recording.sampling_rate))
    while len(samples := recording.window(start, longest + 1)):
        end = len(samples)
        if end > longest:
            end = quietest(samples[:longest], min(window, longest // 2 or 1))
        yield Piece(start, samples[:end])
        start += end


def quietest(samples: Float32[np.ndarray, " n"], window: int) -> int:
    """The place in the second half of samples around which they are quietest.

    Args:
        samples: at least two.
        window: the number of samples over which loudness is measured.
    """
    energy = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    loudness = energy[window:] - energy[:-window]
    # Windows whose middle is in the second half.
    first = max(0, len(samples) // 2 - window // 2)
    return max(1, first + int(loudness[first:].argmin()) + window // 2)


def _power(number: float) -> int:
    """The next power of two."""
    return 1 << max(0, round(number) - 1).bit_length()
