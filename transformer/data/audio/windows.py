"""What a window of a long recording says: rules of the published code (Radford et al. 2023, 4.5).

A model like Whisper reads 30 seconds at a time. The times that it writes say where the next window
begins; a window that seems wrong is written again, with tokens drawn at a higher temperature.
"""

import dataclasses
import itertools
import zlib
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import numpy as np
from jaxtyping import Float

from transformer.data.audio.prompts import Marks
from transformer.data.audio.transcripts import Segment
from transformer.data.audio.words import TimedToken, Word, words_of
from transformer.data.tokenizers.protocol import SentenceTokenizer
from transformer.errors import ConfigError
from transformer.limits import AnyReal, CountOrZero, Real, Several, Share, Text, TokenIds, Whole
from transformer.limits import AtLeastOne as Ratio
from transformer.ops.search_rules import Penalty
from transformer.ops.transcript_rules import TimestampRules, TranscriptRules

# Steps of the tokens of times, in seconds.
TIME_STEP = 0.02
Pairs = Annotated[
    tuple[Annotated[tuple[Annotated[int, Whole(0, 1 << 14)], ...], Several(2)], ...], Several(1000)
]
Temperatures = Annotated[tuple[Annotated[float, Real(0.0, 100.0)], ...], Several(20)]


@dataclasses.dataclass(frozen=True)
class Windows:
    """How recordings are written down; its fields are `config.task.windows`.

    Attributes:
        timestamps: whether short recordings get times. Recordings of several windows always do,
            because times say where a window begins.
        beam_size: hypotheses at temperature 0; 1 takes the most probable token.
        length_penalty: of the beam search: log probabilities are divided by length to this power.
        temperatures: tried one after another until a text passes the limits below.
        compression_limit: a text is wrong that compresses better than this (it repeats itself).
        log_prob_limit: a text is wrong whose tokens have a lower mean log probability, in nats.
        no_speech_limit: nothing was said if silence is more probable, and the text is improbable.
        condition: whether each window is told the text before it.
        initial_text: what the first window is told, such as names that will occur.
        suppressed: tokens that are never written, such as signs that nobody says.
        suppressed_first: tokens that no window begins with.
        latest_first: the latest first time of a window, in steps of 0.02 seconds; None for any.
        max_new_tokens: the most tokens of a window; 0 takes what the model has room for.
        word_times: whether words get times.
        alignment_heads: pairs of a layer and a head of the decoder whose attention to the recording
            says when words were said; none takes all heads of the upper half of the layers.
        median_width: of the filter that smooths this attention over time; odd.
    """

    timestamps: bool = False
    beam_size: Annotated[int, Whole(1, 100)] = 1
    length_penalty: Penalty = 1.0
    temperatures: Temperatures = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    compression_limit: Ratio | None = 2.4
    log_prob_limit: AnyReal | None = -1.0
    no_speech_limit: Share | None = 0.6
    condition: bool = True
    initial_text: Text = ""
    suppressed: TokenIds = ()
    suppressed_first: TokenIds = ()
    latest_first: CountOrZero | None = 50
    max_new_tokens: CountOrZero = 0
    word_times: bool = False
    alignment_heads: Pairs = ()
    median_width: Annotated[int, Whole(1, 999)] = 7

    def check(self) -> None:
        """Refuses values that cannot work.

        Raises:
            ConfigError: names the field.
        """
        if not self.temperatures:
            raise ConfigError("config.task.windows.temperatures is empty: give at least one.")
        if self.median_width % 2 == 0:
            raise ConfigError(
                f"config.task.windows.median_width is {self.median_width}: give an odd number."
            )

    def rules(self, marks: Marks, *, times: bool) -> TranscriptRules:
        """Which tokens may follow."""
        rules = TimestampRules(marks.end, marks.no_times, self.latest_first)
        return TranscriptRules(self.suppressed, self.suppressed_first, rules if times else None)


class Attempt(NamedTuple):
    """A window as it was written once.

    Attributes:
        tokens: without the end token.
        log_prob: the mean of all tokens and the end, in nats.
        no_speech: the probability of silence.
        temperature: at which tokens were drawn; 0 took the most probable.
        compression: how well the text compresses: its bytes by those of its compressed form.
        has_end: whether the end token came; otherwise the text was cut.
    """

    tokens: tuple[int, ...]
    log_prob: float
    no_speech: float
    temperature: float
    compression: float
    has_end: bool = True

    def is_silent(self, windows: Windows) -> bool:
        """Whether nothing was said."""
        return (
            windows.no_speech_limit is not None
            and self.no_speech > windows.no_speech_limit
            and not (windows.log_prob_limit is not None and self.log_prob > windows.log_prob_limit)
        )

    def is_wrong(self, windows: Windows) -> bool:
        """Whether it should be written again."""
        if self.is_silent(windows) and windows.log_prob_limit is not None:
            return False
        repeats = (
            windows.compression_limit is not None and self.compression > windows.compression_limit
        )
        improbable = windows.log_prob_limit is not None and self.log_prob < windows.log_prob_limit
        return repeats or improbable


def compression(text: str) -> float:
    """The bytes of a text by those of its compressed form; high if it repeats itself."""
    content = text.encode()
    return len(content) / len(zlib.compress(content))


class Part(NamedTuple):
    """Some tokens of a window, and the times that stand around them.

    Attributes:
        start: in seconds after the beginning of the window.
        end: the same.
        tokens: with those of times.
    """

    start: float
    end: float
    tokens: tuple[int, ...]


def parts_of(
    tokens: Sequence[int], marks: Marks, num_frames: int, frames_per_time: int
) -> tuple[list[Part], int]:
    """The segments of a window, and how many frames later the next window begins.

    Two times side by side end one segment and begin another. What follows the last such pair is
    unfinished: the next window begins there and hears it again. A single time at the end says that
    nothing more is said in this window.

    Args:
        tokens: what was written, without the end token.
        marks: of the tokenizer.
        num_frames: of the recording in this window.
        frames_per_time: frames in one step of times.
    """
    is_time = [token >= marks.first_time for token in tokens]
    single_end = is_time[-2:] == [False, True]
    cuts = [place + 1 for place, pair in enumerate(itertools.pairwise(is_time)) if all(pair)]

    def seconds(token: int) -> float:
        return (token - marks.first_time) * TIME_STEP

    if not cuts:
        times = [token for token in tokens if token >= marks.first_time]
        end = num_frames // frames_per_time * TIME_STEP
        if times and times[-1] != marks.first_time:
            end = seconds(times[-1])
        return [Part(0.0, end, tuple(tokens))], num_frames
    ends = [*cuts, len(tokens)] if single_end else cuts
    parts = [
        Part(seconds(tokens[first]), seconds(tokens[last - 1]), tuple(tokens[first:last]))
        for first, last in zip([0, *ends], ends, strict=False)
    ]
    if single_end:
        return parts, num_frames
    offset = (tokens[cuts[-1] - 1] - marks.first_time) * frames_per_time
    # Without progress there would be no end.
    return parts, offset if 0 < offset <= num_frames else num_frames


def segment_of(
    part: Part, begin: float, attempt: Attempt, tokenizer: SentenceTokenizer, marks: Marks
) -> Segment:
    """A part of a window that begins at `begin` seconds, as text."""
    return Segment(
        start=begin + part.start,
        end=begin + part.end,
        text=text_of(part.tokens, tokenizer, marks),
        tokens=part.tokens,
        details={
            "average_log_prob": attempt.log_prob,
            "no_speech_prob": attempt.no_speech,
            "compression_ratio": attempt.compression,
            "temperature": attempt.temperature,
        },
    )


def words_in(
    part: Part,
    first: int,
    ends: Float[np.ndarray, " n"],
    begin: float,
    tokenizer: SentenceTokenizer,
    marks: Marks,
    language: str,
) -> tuple[Word, ...]:
    """The words of a part of a window, and when they were said.

    Args:
        part: the part.
        first: how many tokens of the window stand before it.
        ends: when each token of the window ends, in seconds after its beginning.
        begin: where the window begins, in seconds.
        tokenizer: of the model.
        marks: of the tokenizer.
        language: the code of the language; empty if it is unknown.
    """
    # A token begins where the one before it ends.
    times = begin + np.append(0.0, ends)[first : first + len(part.tokens) + 1]
    timed = [
        TimedToken(token, float(start), float(end))
        for token, start, end in zip(part.tokens, times, times[1:], strict=False)
        if token < marks.end
    ]
    return words_of(timed, lambda ids: text_of(ids, tokenizer, marks), language)


def text_of(tokens: Sequence[int], tokenizer: SentenceTokenizer, marks: Marks) -> str:
    """The text of tokens, without marks and times, with the space that it may begin with."""
    ids = [token for token in tokens if token < marks.end]
    if not ids:
        return ""
    space = " " if tokenizer.tokens(ids[:1])[0].startswith("▁") else ""
    return space + tokenizer.decode(ids)
