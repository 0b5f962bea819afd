"""Transcripts as text: plain, JSON, subtitles (SRT, WebVTT) and tables."""

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType

from transformer.data.audio.transcripts import Segment, Transcript
from transformer.data.audio.words import Word
from transformer.types import Json


def plain_text(transcript: Transcript) -> str:
    """One line for each segment."""
    return "".join(f"{_line(segment)}\n" for segment in transcript.segments)


def json_text(transcript: Transcript) -> str:
    """One JSON object: the whole text, and each segment with its seconds and what is known."""
    return f"{json.dumps(as_json(transcript), ensure_ascii=False, indent=2)}\n"


def as_json(transcript: Transcript) -> Json:
    """A transcript as a JSON object."""
    segments = [
        {
            "start": round(segment.start, 3),
            "end": round(segment.end, 3),
            "text": segment.text.strip(),
            "tokens": list(segment.tokens),
            **segment.details,
            **({"words": [_word(word) for word in segment.words]} if segment.words else {}),
        }
        for segment in transcript.segments
    ]
    return {
        "name": transcript.name,
        "language": transcript.language,
        "seconds": round(transcript.seconds, 3),
        "text": transcript.text,
        "segments": segments,
    }


def _word(word: Word) -> Json:
    return {"start": round(word.start, 3), "end": round(word.end, 3), "text": word.text.strip()}


def subrip(transcript: Transcript) -> str:
    """Subtitles in the format of SubRip, `.srt`: numbers, times, text and a blank line."""
    blocks = [
        f"{number}\n{_clock(segment.start, ',')} --> {_clock(segment.end, ',')}\n"
        # An arrow of its own would be read as a line of times.
        f"{_line(segment).replace('-->', '->')}\n"
        for number, segment in enumerate(transcript.segments, 1)
    ]
    return "\n".join(blocks)


def web_vtt(transcript: Transcript) -> str:
    """Subtitles in the format WebVTT (https://www.w3.org/TR/webvtt1), `.vtt`."""
    blocks = ["WEBVTT\n"]
    for segment in transcript.segments:
        # Section 4.2.2: these would begin a tag or an entity, and the arrow a line of times.
        text = _line(segment).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        times = f"{_clock(segment.start, '.')} --> {_clock(segment.end, '.')}"
        blocks.append(f"{times}\n{text}\n")
    return "\n".join(blocks)


def table(transcript: Transcript) -> str:
    """Fields separated by tabs: start and end in milliseconds, and text; with a header."""
    rows = ["start\tend\ttext\n"]
    for segment in transcript.segments:
        rows.append(f"{_milliseconds(segment.start)}\t{_milliseconds(segment.end)}\t")
        rows.append(f"{_line(segment)}\n")
    return "".join(rows)


# What a transcript can be written as, by the ending of the file.
WRITERS: Mapping[str, Callable[[Transcript], str]] = MappingProxyType(
    {"txt": plain_text, "json": json_text, "srt": subrip, "vtt": web_vtt, "tsv": table}
)


def _line(segment: Segment) -> str:
    """The text of a segment on one line, in which no tab or line end divides anything."""
    return " ".join(segment.text.split())


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _clock(seconds: float, point: str) -> str:
    """Hours, minutes, seconds and milliseconds."""
    minutes, milliseconds = divmod(_milliseconds(seconds), 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}{point}{milliseconds % 1000:03}"
