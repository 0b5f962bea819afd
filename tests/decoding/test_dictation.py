"""Windows of recordings: what is heard, where the next one begins, what is written again."""

import contextlib

import jax.numpy as jnp
import numpy as np
import pytest

from tests.interop.whispers import END, MARKS, Held, sound, tokenizer
from transformer.data.audio.features import LogMel
from transformer.data.audio.prompts import Prompt, marks_of, require_marks
from transformer.data.audio.windows import Attempt, Part, Windows, compression, parts_of, text_of
from transformer.data.tokenizers.sentences import LibrarySentenceTokenizer
from transformer.decoding.listening import Listening, features_of
from transformer.errors import ConfigError
from transformer.ops.audio import log_mel, whisper_scaled

FEATURES = LogMel(num_mels=20, pad_seconds=1.0, scaling="whisper")
WORDS = LibrarySentenceTokenizer(tokenizer())
FOUND = require_marks(WORDS)
# 0.00 seconds.
ZERO = MARKS["notimestamps"] + 1


def test_marks_and_prompts():
    assert (FOUND.end, FOUND.start, FOUND.first_time) == (END, MARKS["startoftranscript"], ZERO)
    assert FOUND.languages == {code: MARKS[code] for code in ("en", "de", "fr")}
    prompt = Prompt("de", "translate", multilingual=True)
    expected = [MARKS[name] for name in ("de", "translate", "notimestamps")]
    assert prompt.tokens(WORDS).tolist() == expected
    assert prompt.opening(FOUND, "en", times=True) == (
        MARKS["startoftranscript"],
        MARKS["en"],
        MARKS["translate"],
    )
    assert Prompt().tokens(WORDS).tolist() == [MARKS["notimestamps"]]
    with pytest.raises(ConfigError, match="knows de, en, fr"):
        Prompt("xx", multilingual=True).tokens(WORDS)
    with pytest.raises(ConfigError, match="language is empty"):
        Prompt(multilingual=True).tokens(WORDS)
    with pytest.raises(ConfigError, match="has no choice"):
        Prompt("de").check()
    assert marks_of(WORDS) is not None


def opened(seconds):
    samples = sound(seconds, 5)
    one = Listening(0, "it", lambda: contextlib.nullcontext(Held(samples)), FEATURES, 100)
    one.open(contextlib.ExitStack())
    return samples, one


def heard(one):
    frames = one.frames()
    return features_of(
        FEATURES,
        jnp.asarray(frames.samples)[None],
        jnp.asarray([frames.valid]),
        jnp.asarray([frames.loudest], jnp.float32),
    )[0]


def test_windows_are_parts_of_the_whole_recording():
    samples, one = opened(3.217)
    assert (one.is_short, one.num_frames) == (False, 321)
    whole = whisper_scaled(log_mel(jnp.asarray(samples)[None], FEATURES.filters(), 160))[0]
    for place in (0, 64, 164, 221, 300):
        one.place = place
        expected = np.zeros((100, 20), np.float32)
        expected[: 321 - place] = whole[place : min(place + 100, 321)]
        np.testing.assert_allclose(heard(one), expected, atol=2e-5, err_msg=str(place))


@pytest.mark.parametrize("seconds", [0.4, 1.0, 0.999, 0.99, 0.001])
def test_a_short_recording_is_followed_by_silence(seconds):
    samples, one = opened(seconds)
    assert one.is_short
    padded = np.zeros((1, 16_000), np.float32)
    padded[0, : len(samples)] = samples
    whole, _ = FEATURES(padded, np.asarray([len(samples)]))
    # Also behind a window that begins later, where the end of the sound goes backwards.
    for place in range(0, one.num_frames, 13):
        one.place = place
        expected = np.pad(whole[0, place:], ((0, place), (0, 0)))
        np.testing.assert_allclose(heard(one), expected, atol=2e-5, err_msg=str(place))


class Endless:
    """A sound of an hour that is never held as a whole."""

    def __init__(self):
        self.last = 0

    def window(self, start, count):
        assert start >= self.last
        assert count <= 30 * 16_000 + 400
        self.last = start
        length = min(count, max(0, 3600 * 16_000 - start))
        return np.full(length, 0.01, np.float32)


def test_an_hour_is_heard_window_by_window():
    features = LogMel(num_mels=20, pad_seconds=30.0, scaling="whisper")
    one = Listening(0, "it", lambda: contextlib.nullcontext(Endless()), features, 3000)
    assert (one.num_frames, one.is_short) == (360_000, False)


A, B = 0, 1


@pytest.mark.parametrize(
    ("tokens", "parts", "offset"),
    [
        # No time, one at the end, one in the middle.
        ([A, B], [(0.0, 0.8, [A, B])], 80),
        ([ZERO, A, ZERO + 30], [(0.0, 0.6, [ZERO, A, ZERO + 30])], 80),
        ([ZERO, A], [(0.0, 0.8, [ZERO, A])], 80),
        # Two side by side: what follows is unfinished.
        ([ZERO + 1, A, ZERO + 9, ZERO + 9, B], [(0.02, 0.18, [ZERO + 1, A, ZERO + 9])], 18),
        # Unless one time ends it.
        (
            [ZERO, A, ZERO + 9, ZERO + 10, B, ZERO + 20],
            [(0.0, 0.18, [ZERO, A, ZERO + 9]), (0.2, 0.4, [ZERO + 10, B, ZERO + 20])],
            80,
        ),
        ([], [(0.0, 0.8, [])], 80),
    ],
)
def test_segments_of_a_window(tokens, parts, offset):
    found, place = parts_of(tokens, FOUND, 80, 2)
    assert place == offset
    expected = [Part(start, end, tuple(ids)) for start, end, ids in parts]
    assert [part.tokens for part in found] == [part.tokens for part in expected]
    times = [(part.start, part.end) for part in found]
    np.testing.assert_allclose(times, [(part.start, part.end) for part in expected])


def test_what_is_wrong_or_silent():
    usual = Windows()
    good = Attempt((A,), -0.5, 0.1, 0.0, 1.5)
    assert not good.is_wrong(usual)
    assert not good.is_silent(usual)
    assert good._replace(compression=2.5).is_wrong(usual)
    assert good._replace(log_prob=-1.5).is_wrong(usual)
    silent = good._replace(log_prob=-1.5, no_speech=0.7)
    assert silent.is_silent(usual)
    assert not silent.is_wrong(usual)
    assert not good._replace(no_speech=0.7).is_silent(usual)
    assert compression("ha " * 50) > 2.4 > compression("A sentence without repetition.")


def test_texts_keep_their_first_space():
    space = END - 1
    assert text_of([ZERO, space, A, B, ZERO + 3], WORDS, FOUND) == " ab"
    assert text_of([A, B], WORDS, FOUND) == "ab"
    assert text_of([ZERO], WORDS, FOUND) == ""
