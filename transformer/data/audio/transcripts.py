"""What was said in a recording, and when."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from transformer.data.audio.words import Word


class Segment(NamedTuple):
    """A part of a transcript.

    Attributes:
        start: where it begins, in seconds.
        end: where it ends, in seconds.
        text: what was said, as the tokenizer wrote it, mostly with a space in front.
        tokens: the token ids of the text, with those of times if there are any.
        details: numbers about it by name, such as `average_log_prob`.
        words: its words with their times; empty if nobody asked for them.
    """

    start: float
    end: float
    text: str
    tokens: tuple[int, ...] = ()
    details: Mapping[str, float] = MappingProxyType({})
    words: tuple[Word, ...] = ()


class Transcript(NamedTuple):
    """A recording as text.

    Attributes:
        segments: in order.
        seconds: the length of the recording.
        language: the language as a code, such as `en`; empty if unknown.
        name: where the recording came from.
    """

    segments: tuple[Segment, ...]
    seconds: float = 0.0
    language: str = ""
    name: str = ""

    @property
    def text(self) -> str:
        """The whole text on one line."""
        return " ".join("".join(segment.text for segment in self.segments).split())
