"""Strings of digits that a few synthetic voices read, each of them often: for learning to speak.

A voice is a variant of eSpeak NG with one accent and one pitch; only its speed differs a little.
None is among those of `data.embedded.voices` that recognisers learn from, and the strings that are
held out there are held out here, too. So such a recogniser can judge what was learned.
"""

from collections.abc import Sequence

import numpy as np

from transformer.data.audio.transcribed import HeldRecordings
from transformer.data.embedded.speaking import Request
from transformer.data.embedded.voices import HELD_OUT_VARIANTS, digit_string, recordings_of

# What a voice may be called.
NAMES = HELD_OUT_VARIANTS
TRAINING, VALIDATION = 2_000, 200
_ACCENT, _PITCH, _SPEEDS = "en-us", 50, (140, 170)
# The seed of the draws; never change it, so that scores stay comparable.
_SEED = 1


def read_by(
    names: Sequence[str], rate: int, counts: tuple[int, int] = (TRAINING, VALIDATION)
) -> tuple[HeldRecordings, HeldRecordings]:
    """Strings of 1 to 6 digits; a transcript is the name of the voice, then the words.

    Args:
        names: the voices, of `NAMES`; they take turns.
        rate: the wanted samples a second.
        counts: how many recordings to train on, and to validate on.

    Raises:
        MissingDependencyError: if the packages `espeakng-loader` and `soxr` are not installed.
        DataError: if the library of voices cannot be used.
    """
    generator = np.random.Generator(np.random.Philox(key=[_SEED, 0]))
    train, validation = (
        _read(generator, names, rate, count, held_out=held_out)
        for count, held_out in zip(counts, (False, True), strict=True)
    )
    return train, validation


def _read(
    generator: np.random.Generator, names: Sequence[str], rate: int, count: int, *, held_out: bool
) -> HeldRecordings:
    requests = []
    for index in range(count):
        text = digit_string(generator, held_out=held_out)
        speed = int(generator.integers(_SPEEDS[0], _SPEEDS[1] + 1))
        requests.append(Request(text, _ACCENT, names[index % len(names)], _PITCH, speed))
    found = recordings_of(requests, rate)
    texts = [f"{one.variant} {one.text}" for one in requests]
    return HeldRecordings(found.names, texts, found.lengths, found.values)
