"""Strings of digits that synthetic voices read: speech that needs no file.

The voices are those of eSpeak NG (https://github.com/espeak-ng/espeak-ng), which the package
`espeakng-loader` brings as a library. They differ in accent, in the shape of the throat (a
variant), in pitch and in speed.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int16

from transformer.caches import cache_folder, read_entry, write_entry
from transformer.data.audio.augmentation import resampled
from transformer.data.audio.transcribed import HeldRecordings
from transformer.data.embedded.held_out import is_held_out
from transformer.data.embedded.speaking import RATE, Request, spoken
from transformer.progress import counting

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ACCENTS = ("en-us", "en", "en-gb-x-rp", "en-gb-scotland", "en-029")
# Variants that sound like people, and of near copies (Iven 1 to 4) one.
VARIANTS = (
    *("Alex", "Alicia", "Andrea", "Andy", "Annie", "Denis", "Diogo", "Gene", "Henrique", "Jacky"),
    *("Lee", "Marco", "Michael", "Mike", "Nguyen", "Reed", "Storm", "anika", "antonio", "aunty"),
    *("belinda", "benjamin", "boris", "david", "ed", "edward", "f1", "f2", "f3", "grandma"),
    *("grandpa", "gustave", "iven", "klatt", "klatt3", "m1", "m2", "m3", "m4", "m5", "m6"),
    *("marcelo", "max", "michel", "norbert", "paul", "pedro", "quincy", "rob", "robert", "sandro"),
    *("shelby", "travis", "victor", "zac"),
)
# No recording to train on has one of these.
HELD_OUT_VARIANTS = (
    *("Mario", "Hugo", "adam", "croak", "f4", "f5", "ian", "john", "linda", "m7", "m8", "steph"),
)
# Neither a recording to train on nor one to validate on has one of these.
TEST_VARIANTS = (
    *("AnxiousAndy", "Tweaky", "announcer", "kaukovalta", "klatt2", "miguel", "mike2", "pablo"),
)
# Digits of the longest string to train on, and of the shortest to validate on: of fewer digits
# there are too few strings to hold any out.
MOST_DIGITS, FEWEST_HELD_OUT = 6, 3
HELD_OUT_FRACTION = 0.1
TRAINING, VALIDATION, TEST = 4_000, 500, 500
# Words a minute, and pitch on eSpeak's scale from 0 to 99.
SPEEDS, PITCHES = (120, 220), (25, 75)
# The seed of the draws; never change it, so that scores stay comparable.
_SEED = 0


def spoken_digits(
    rate: int, counts: tuple[int, int] = (TRAINING, VALIDATION)
) -> tuple[HeldRecordings, HeldRecordings]:
    """Strings of 1 to 6 digits, read by synthetic voices; they are made once and kept in the cache.

    Args:
        rate: the wanted samples a second.
        counts: how many recordings to train on, and to validate on. Those to validate on have
            voices and strings that those to train on have not.

    Raises:
        MissingDependencyError: if the packages `espeakng-loader` and `soxr` are not installed.
        DataError: if the library of voices cannot be used.
    """
    training, validation = _requests(counts)
    return recordings_of(training, rate), recordings_of(validation, rate)


def digits_to_test(
    rate: int, count: int = TEST, others: tuple[int, int] = (TRAINING, VALIDATION)
) -> HeldRecordings:
    """A third set, to test on: its voices and strings are in none of the two of `spoken_digits`.

    Args:
        rate: the wanted samples a second.
        count: how many recordings.
        others: the sizes of the two other sets.

    Raises:
        MissingDependencyError: see `spoken_digits`.
        DataError: see `spoken_digits`.
    """
    known = {request.text for request in _requests(others)[1]}
    generator = np.random.Generator(np.random.Philox(key=[_SEED, 1]))
    test: list[Request] = []
    while len(test) < count:
        request = _request(generator, TEST_VARIANTS, held_out=True)
        if request.text not in known:
            test.append(request)
    return recordings_of(test, rate)


def _requests(counts: tuple[int, int]) -> tuple[list[Request], list[Request]]:
    """The strings to train on and those to validate on, with their voices."""
    generator = np.random.Generator(np.random.Philox(key=[_SEED, 0]))
    training = [_request(generator, VARIANTS, held_out=False) for _ in range(counts[0])]
    validation = [_request(generator, HELD_OUT_VARIANTS, held_out=True) for _ in range(counts[1])]
    return training, validation


def digit_string(generator: np.random.Generator, *, held_out: bool) -> str:
    """The words of a string of digits; whether one is held out depends on its words alone."""
    while True:
        least = FEWEST_HELD_OUT if held_out else 1
        digits = generator.integers(10, size=generator.integers(least, MOST_DIGITS + 1))
        text = " ".join(WORDS[digit] for digit in digits)
        kept = len(digits) >= FEWEST_HELD_OUT and is_held_out(text, HELD_OUT_FRACTION)
        if kept == held_out:
            return text


def _request(generator: np.random.Generator, variants: Sequence[str], *, held_out: bool) -> Request:
    """A string of digits and the voice that reads it."""
    text = digit_string(generator, held_out=held_out)
    accent, variant = (str(generator.choice(names)) for names in (ACCENTS, variants))
    pitch, speed = (int(generator.integers(low, high + 1)) for low, high in (PITCHES, SPEEDS))
    return Request(text, accent, variant, pitch, speed)


def recordings_of(requests: Sequence[Request], rate: int) -> HeldRecordings:
    """The recordings of requests, from the cache or newly made.

    Raises:
        MissingDependencyError: if the packages `espeakng-loader` and `soxr` are not installed.
        DataError: if the library of voices cannot be used.
    """
    key = json.dumps([rate, *requests]).encode()
    name = f"voices-{hashlib.sha256(key).hexdigest()[:32]}"
    folder = cache_folder()
    path = None if folder is None else folder / name
    content = None if path is None else read_entry(path)
    if content is None:
        made = _made(requests, rate)
        content = _packed(made)
        if path is not None:
            _keep(path, content)
    lengths = np.frombuffer(content, "<i8", len(requests))
    samples = np.frombuffer(content, "<i2", offset=lengths.nbytes)
    return HeldRecordings(
        [f"{one.accent}+{one.variant}, pitch {one.pitch}, speed {one.speed}" for one in requests],
        [one.text for one in requests],
        lengths,
        samples,
    )


def _made(requests: Sequence[Request], rate: int) -> list[Int16[np.ndarray, " _"]]:
    found = []
    with counting(len(requests), "spoken", "strings") as update:
        for samples in spoken(requests):
            found.append(samples if rate == RATE else resampled(samples, RATE / rate))
            update(len(found))
    return found


def _packed(recordings: Sequence[Int16[np.ndarray, " _"]]) -> bytes:
    """The length of each recording, then all samples."""
    lengths = np.array([len(samples) for samples in recordings], "<i8")
    return lengths.tobytes() + np.concatenate(recordings).astype("<i2").tobytes()


def _keep(path: Path, content: bytes) -> None:
    write_entry(path, lambda file: file.write(content))
