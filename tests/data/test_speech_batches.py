"""Recordings as batches: their changes, their targets, and the voices that need no file."""

import importlib.util

import numpy as np
import pytest

from transformer.data.audio.augmentation import (
    Augmentation,
    at_speed,
    warp,
    with_noise,
    with_pauses,
)
from transformer.data.audio.batches import SpeechRows, duration_buckets
from transformer.data.audio.transcribed import HeldRecordings, JoinedRecordings, SomeRecordings
from transformer.data.embedded import voices
from transformer.data.embedded.speaking import Request, spoken
from transformer.data.order import Batches, bucketed
from transformer.data.pairs.files import Sentences
from transformer.data.source import Visit
from transformer.errors import DataError
from transformer.ops.losses import IGNORED

LENGTHS = np.array([30, 10, 50, 20])
END = 9


def recordings(shape=()):
    values = np.random.default_rng(0).normal(size=(LENGTHS.sum(), *shape)) * 1000
    dtype = np.float32 if shape else np.int16
    names = [f"take {n}" for n in range(len(LENGTHS))]
    return HeldRecordings(names, ["ab", "", "abc", "a"], LENGTHS, values.astype(dtype))


def rows(shape=(), augmentation=None, prompt=()):
    targets = Sentences([np.arange(n, dtype=np.int32) for n in (2, 0, 3, 1)], END)
    buckets = duration_buckets(LENGTHS, batch_length=100, rows_multiple=2, count=2, unit=8)
    augmentation = augmentation or Augmentation()
    return SpeechRows(recordings(shape), targets, buckets, augmentation, np.array(prompt, np.int32))


def test_shapes_are_few_and_hold_all():
    assert [tuple(bucket) for bucket in rows().buckets] == [(2, 32), (2, 56)]
    one = duration_buckets(LENGTHS, batch_length=10, rows_multiple=4, count=1, unit=1)
    assert [tuple(bucket) for bucket in one] == [(4, 50)]


def test_what_a_batch_holds():
    batch = rows(prompt=(7, 8)).batch([Visit(0), Visit(1)])
    whole = recordings()
    np.testing.assert_array_equal(batch["samples"][0, :30], whole[0])
    assert batch["samples"].shape == (2, 32)
    assert not batch["samples"][1, 10:].any()
    assert batch["num_samples"].tolist() == [30, 10]
    # A target of an empty transcript still has its end.
    assert batch["target"].tolist() == [[END, 7, 8, 0, 1, 0, 0, 0], [END, 7, 8, 0, 0, 0, 0, 0]]
    assert batch["labels"][0].tolist() == [IGNORED, IGNORED, 0, 1, END, *[IGNORED] * 3]
    assert batch["labels"][1].tolist() == [IGNORED, IGNORED, END, *[IGNORED] * 5]


@pytest.mark.parametrize("shape", [(), (3,)])
def test_batches_are_the_same_for_any_number_of_hosts(shape):
    augmentation = Augmentation(speed=0.2, noise_above=5.0, time_masks=2, frequency_masks=1)
    source = rows(shape, augmentation)
    whole = Batches(source, bucketed(LENGTHS, source.buckets, 3, 8))
    for step in range(8):
        batch, halves = whole[step], [whole.of_host(host, 2)[step] for host in range(2)]
        for name, array in batch.items():
            joined = np.concatenate([half[name] for half in halves])
            np.testing.assert_array_equal(joined, array, err_msg=name)
    assert {batch["time_masks"].shape for batch in (whole[0], whole[1])} == {(2, 2, 2)}
    first, again = source.batch([Visit(2, 3, 0)]), source.batch([Visit(2, 3, 1)])
    name = "frames" if shape else "samples"
    assert first[name].shape == again[name].shape
    assert (first[name] != again[name]).any()


def test_speed_changes_length_and_pitch():
    pytest.importorskip("soxr", reason="changes the speed of samples")
    tone = (8000 * np.sin(2 * np.pi * 400 * np.arange(8000) / 8000)).astype(np.int16)
    faster = at_speed(tone, 1.25)
    assert len(faster) == 6400
    wanted = 8000 * np.sin(2 * np.pi * 500 * np.arange(6400) / 8000)
    assert np.abs(faster - wanted)[100:-100].max() < 20
    ramp = np.arange(11, dtype=np.float32)[:, None]
    np.testing.assert_allclose(at_speed(ramp, 2.0)[:, 0], [0, 2, 4, 6, 8, 10])
    np.testing.assert_allclose(at_speed(ramp, 0.5)[:5, 0], [0, 0.5, 1, 1.5, 2])
    assert Augmentation(speed=0.2).longest(100) == 125


def test_noise_is_as_weak_as_asked():
    tone = (8000 * np.sin(np.arange(20_000) / 5)).astype(np.int16)
    noise = with_noise(tone, 20.0, np.random.default_rng(0)).astype(float) - tone
    ratio = 10 * np.log10(np.mean(tone.astype(float) ** 2) / np.mean(noise**2))
    assert ratio == pytest.approx(20.0, abs=0.2)


def test_pauses_are_put_where_it_is_quiet():
    loud = np.full(400, 3000, np.int16)
    samples = np.concatenate([loud, np.zeros(400, np.int16), loud])
    gaps = []
    for seed in range(20):
        longer, again = (with_pauses(samples, 500, np.random.default_rng(seed)) for _ in range(2))
        np.testing.assert_array_equal(longer, again)
        assert len(longer) == len(samples) + 500
        # What was loud is whole, in order, and the rest is 40 dB weaker at least.
        is_loud = longer > 1500
        assert is_loud.sum() == 800
        assert np.abs(longer[~is_loud].astype(int)).max() < 150
        gaps.append(np.diff(np.flatnonzero(is_loud)).max() - 1)
    assert min(gaps) < 450
    assert max(gaps) > 600


def test_pauses_take_only_the_room_of_padding():
    plain, paused = rows(), rows(augmentation=Augmentation(pauses=1.0))
    visits = [Visit(0, 1, 0), Visit(1, 1, 0)]
    batch, longer = plain.batch(visits), paused.batch(visits)
    assert longer["samples"].shape == batch["samples"].shape
    assert (longer["num_samples"] >= batch["num_samples"]).all()
    assert longer["num_samples"].sum() > batch["num_samples"].sum()


def test_cepstra_are_warped_as_their_spectrum():
    np.testing.assert_allclose(warp(13, 1.0), np.eye(13), atol=1e-12)
    cepstra = np.array([1.0, 0.5, 0.0, 0.2, *[0.0] * 16])
    waves, places = np.pi * np.arange(20), np.linspace(0, 0.9, 50)

    def spectrum(values, places):
        return values[0] + 2 * np.cos(places[:, None] * waves[1:]) @ values[1:]

    warped = spectrum(cepstra @ warp(20, 1.1), places)
    np.testing.assert_allclose(warped, spectrum(cepstra, places / 1.1), atol=0.03)
    source = rows((3,), Augmentation(cepstral_warp=0.1))
    assert (
        source.batch([Visit(0, 1, 0)])["frames"] != rows((3,)).batch([Visit(0)])["frames"]
    ).any()


def test_sets_of_recordings():
    whole = recordings()
    both = JoinedRecordings([whole, SomeRecordings(whole, [2, 0])])
    assert len(both) == 6
    np.testing.assert_array_equal(both[4], whole[2])
    assert both.names[5] == "take 0"
    assert both.lengths.tolist() == [*LENGTHS, 50, 30]
    assert len({both.digest, whole.digest, SomeRecordings(whole, [0]).digest}) == 3


needs_voices = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None, reason="speaks with espeakng-loader"
)


@needs_voices
def test_the_same_requests_are_spoken_the_same():
    requests = [
        Request("one two", "en-us", "m3", 50, 180),
        Request("six", "en", "whisper", 30, 150),
    ]
    first, again = (list(spoken(requests)) for _ in range(2))
    assert len(first) == 2
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.abs(first[0]).max() > 1000
    with pytest.raises(DataError, match="has no variant nobody"):
        list(spoken([Request("one", "en-us", "nobody", 50, 180)]))


@needs_voices
def test_voices_and_strings_are_held_out(monkeypatch, tmp_path):
    pytest.importorskip("soxr", reason="changes the sampling rate")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    train, validation = voices.spoken_digits(8000, (12, 6))
    assert (len(train), len(validation)) == (12, 6)
    assert not set(train.transcripts) & set(validation.transcripts)
    test = voices.digits_to_test(8000, 6, (12, 6))
    assert not set(test.transcripts) & {*train.transcripts, *validation.transcripts}
    variants = [
        {name.split("+")[1].split(",")[0] for name in part.names}
        for part in (train, validation, test)
    ]
    assert sum(map(len, variants)) == len(set().union(*variants))
    named = (voices.VARIANTS, voices.HELD_OUT_VARIANTS, voices.TEST_VARIANTS)
    assert sum(map(len, named)) == len(set().union(*named))
    # From the cache.
    monkeypatch.setattr(voices, "spoken", None)
    assert voices.spoken_digits(8000, (12, 6))[0].digest == train.digest
