"""A recording as a page shows it: its spectrogram, the times of its tokens, and what CTC hears."""

import numpy as np
from jaxtyping import Float, UInt8

from transformer.decoding.ctc import align
from transformer.explaining.arrays import Arrays
from transformer.explaining.pictures import png_address
from transformer.explaining.recording_prompts import NONE
from transformer.explaining.traces import StackTrace, Trace
from transformer.types import Json

# From quiet to loud: red, green and blue at five loudnesses.
_COLOURS = np.array(
    [(10, 12, 32), (58, 38, 108), (150, 60, 110), (236, 130, 76), (253, 238, 190)], np.float32
)
# The columns of the picture, and how many points of it one band has.
_MOST_COLUMNS, _POINTS = 1500, 2
# Shares of the frames that are quieter and louder than all that the colours tell apart.
_DARKEST, _BRIGHTEST = 2.0, 99.7


def sound_of(trace: Trace, stack: StackTrace, arrays: Arrays) -> Json | None:
    """What a page shows of a recording; None for the decoder, and for what is no recording."""
    sound = trace.reading.sound
    if sound is None or stack is not trace.stacks[0]:
        return None
    pixels = spectrogram(sound.frames)
    return {
        "png": png_address(pixels),
        "width": pixels.shape[1],
        "height": pixels.shape[0],
        "edges": list(sound.edges),
        "silent": sound.is_silent,
        "ctc": _ctc(trace, stack, arrays),
    }


def spectrogram(frames: Float[np.ndarray, "T M"]) -> UInt8[np.ndarray, "Y X 3"]:
    """A picture of a recording's features, with time from left to right and low bands below."""
    columns = min(_MOST_COLUMNS, len(frames))
    starts = np.arange(columns) * len(frames) // columns
    loudness = np.maximum.reduceat(frames, starts, axis=0)
    low, high = np.percentile(loudness, (_DARKEST, _BRIGHTEST))
    scaled = np.clip((loudness - low) / max(float(high - low), 1e-6), 0.0, 1.0).T[::-1]
    places = np.arange(len(_COLOURS)) / (len(_COLOURS) - 1)
    colours = [np.interp(scaled, places, _COLOURS[:, channel]) for channel in range(3)]
    return np.stack(colours, axis=-1).round().astype(np.uint8).repeat(_POINTS, axis=0)


def _ctc(trace: Trace, stack: StackTrace, arrays: Arrays) -> Json | None:
    """Of the tokens of the transcript and of none, their probabilities at each vector.

    `spans` are the tokens at their places in the most probable alignment: where they begin and end,
    in seconds; empty if the recording is too short for the transcript.
    """
    chances, sound = stack.whole.get("alignment"), trace.reading.sound
    if chances is None or sound is None:
        return None
    none = chances.shape[1] - 1
    shown = list(dict.fromkeys(sound.ids))
    with np.errstate(divide="ignore"):
        spans = align(np.log(chances.astype(np.float64)), sound.ids, none) or []
    text_of = trace.reading.text_of
    return {
        "names": [*map(text_of, shown), NONE],
        "probabilities": arrays.shares(chances[:, [*shown, none]].T),
        "second": sound.second,
        "spans": [
            {
                "text": text_of(index),
                "begin": span.begin * sound.second,
                "end": span.end * sound.second,
            }
            for index, span in zip(sound.ids, spans, strict=False)
        ],
    }
