import os
import tracemalloc

import numpy as np
import pytest

from transformer.data.audio.reading import OpenRecording, audio_blocks, read_audio, read_header
from transformer.errors import DataError, MissingDependencyError

soundfile = pytest.importorskip("soundfile", reason="reads recordings")
soxr = pytest.importorskip("soxr", reason="changes the sampling rate")
RATE = 16_000


def tone(seconds=1.0, rate=RATE, channels=1, hertz=440.0):
    """A tone whose channels differ in loudness; their mean is half as loud as the first."""
    wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)
    loudness = np.linspace(1.0, 0.0, channels) if channels > 1 else np.ones(1)
    return (wave[:, None] * loudness).astype(np.float32)


def written(path, samples, rate=RATE, **options):
    soundfile.write(path, samples, rate, **options)
    return path


@pytest.mark.parametrize(
    ("name", "tolerance"), [("a.wav", 1e-4), ("a.flac", 1e-4), ("a.ogg", 0.05), ("a.mp3", 0.05)]
)
def test_formats(tmp_path, name, tolerance):
    samples = tone()
    found = read_audio(written(tmp_path / name, samples), RATE)
    assert found.dtype == np.float32
    assert found.shape == (RATE,)
    np.testing.assert_allclose(found[2000:-2000], samples[2000:-2000, 0], atol=tolerance)


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (96_000, 6), (44_100, 2)])
def test_rates_and_channels(tmp_path, rate, channels):
    path = written(tmp_path / "a.wav", tone(rate=rate, channels=channels), rate, subtype="FLOAT")
    assert read_header(path) == (rate, channels, 1.0)
    expected = tone()[:, 0] * (0.5 if channels > 1 else 1.0)
    found = read_audio(path, RATE)
    assert found.shape == (RATE,)
    np.testing.assert_allclose(found[500:-500], expected[500:-500], atol=2e-4)


def test_parts_are_the_whole(tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.1, 44_100 * 35).astype(np.float32)
    path = written(tmp_path / "a.wav", noise, 44_100, subtype="FLOAT")
    whole = read_audio(path, RATE)
    np.testing.assert_array_equal(whole, soxr.resample(noise, 44_100, RATE))
    np.testing.assert_array_equal(np.concatenate(list(audio_blocks(path, RATE))), whole)
    with OpenRecording(path, RATE) as recording:
        assert recording.seconds == 35.0
        for start, count in ((0, 10), (5, 100), (7, 170_000), (400_000, 50_000), (460_000, 9)):
            np.testing.assert_array_equal(
                recording.window(start, count), whole[start : start + count]
            )
        assert len(recording.window(559_990, 1000)) == 10
        assert len(recording.window(600_000, 1000)) == 0
        with pytest.raises(ValueError, match="before the last one"):
            recording.window(3, 10)


def test_a_part_of_a_recording(tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.1, RATE * 25).astype(np.float32)
    path = written(tmp_path / "a.wav", noise, subtype="FLOAT")
    part = read_audio(path, RATE, start=1.5, end=22.25)
    np.testing.assert_array_equal(part, noise[24_000:356_000])
    np.testing.assert_array_equal(read_audio(path, RATE, start=24.0), noise[384_000:])
    with pytest.raises(DataError, match=r"has 25.00 seconds, and a part of it is to begin at 25.5"):
        read_audio(path, RATE, start=25.5, end=26.0)
    with pytest.raises(DataError, match=r"has 25.00 seconds, and a part of it is to end at 26"):
        read_audio(path, RATE, start=24.5, end=26.0)


def test_silence_is_a_recording(tmp_path):
    assert not read_audio(written(tmp_path / "a.flac", np.zeros(RATE)), RATE).any()


def test_an_hour_takes_the_memory_of_a_window(tmp_path):
    path, rate = tmp_path / "hour.flac", 4000
    with soundfile.SoundFile(path, "w", 2000, 1) as file:
        for _ in range(60):
            file.write(np.zeros(60 * 2000, np.float32))
    tracemalloc.start()
    total = 0
    with OpenRecording(path, rate) as recording:
        while len(window := recording.window(total, 30 * rate)):
            total += len(window)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 3600 * rate
    # All of it are 58 MB.
    assert most < 4 << 20
    with pytest.raises(DataError, match=r"hour.flac is longer than 30 seconds"):
        read_audio(path, rate, most_seconds=30.0)


@pytest.mark.parametrize(
    ("name", "kept"), [("a.flac", 0.5), ("a.flac", 0.02), ("a.wav", 0.5), ("a.mp3", 0.5)]
)
def test_truncated(tmp_path, name, kept, capfd):
    noise = np.random.default_rng(0).normal(0, 0.1, RATE)
    path = written(tmp_path / name, noise)
    os.truncate(path, int(path.stat().st_size * kept))
    with pytest.raises(DataError, match=rf"{name} is (damaged or )?truncated"):
        read_audio(path, RATE)
    capfd.readouterr()  # What the decoder of MP3 says about it.


def test_truncated_ogg(tmp_path):
    path = written(tmp_path / "a.ogg", np.random.default_rng(0).normal(0, 0.1, 5 * RATE))
    os.truncate(path, path.stat().st_size * 2 // 3)
    with pytest.raises(DataError, match=r"a.ogg is truncated"):
        read_audio(path, RATE)


def test_an_mp3_without_its_length(tmp_path):
    quiet = np.zeros(20 * RATE)
    quiet[RATE // 2 :] = np.random.default_rng(0).normal(0, 0.1, len(quiet) - RATE // 2)
    path = tmp_path / "a.mp3"
    options = {"bitrate_mode": "VARIABLE", "compression_level": 0.1, "subtype": "MPEG_LAYER_III"}
    written(path, np.flip(quiet), **options)
    assert len(read_audio(path, RATE)) == len(quiet)
    content = path.read_bytes()
    # The first frame holds the length.
    path.write_bytes(content[content.find(content[:2], 4) :])
    with pytest.raises(DataError, match="an MP3 that does not say its length"):
        read_audio(path, RATE)


def test_a_wav_from_a_pipe_does_not_know_its_size(tmp_path):
    path = written(tmp_path / "a.wav", tone())
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = b"\xff" * 4
    path.write_bytes(content)
    assert len(read_audio(path, RATE)) == RATE


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a.wav is empty"),
        (b"I am text.\n" * 100, r"a.wav is no recording: its content is none of WAV, FLAC"),
        (bytes(5000), r"a.wav is no recording"),
    ],
)
def test_no_recording(tmp_path, content, message):
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_audio(path, RATE)


def test_no_file(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_header(tmp_path / "none.wav")
    with pytest.raises(DataError, match="is a folder"):
        read_header(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="a device or a pipe"):
        read_header(tmp_path / "pipe")


def test_no_samples(tmp_path):
    with pytest.raises(DataError, match="has no samples"):
        read_audio(written(tmp_path / "a.wav", np.zeros(0)), RATE)


@pytest.mark.parametrize("value", [np.nan, -np.inf, 3e38])
def test_samples_that_are_no_numbers(tmp_path, value):
    samples = np.zeros((RATE, 2), np.float32)
    samples[4000, 1] = value
    path = written(tmp_path / "a.wav", samples, subtype="FLOAT")
    with pytest.raises(DataError, match=r"a.wav has the sample .* at 0.250 seconds"):
        read_audio(path, RATE)


def test_a_strange_rate(tmp_path):
    with pytest.raises(DataError, match="has 3 samples a second"):
        read_audio(written(tmp_path / "a.wav", np.zeros(9), 3), RATE)


def test_a_rare_format(tmp_path):
    path = written(tmp_path / "a.voc", tone(), format="VOC", subtype="PCM_16")
    with pytest.raises(DataError, match="has the format VOC"):
        read_audio(path, RATE)


def test_without_the_library(tmp_path, monkeypatch):
    path = written(tmp_path / "a.wav", tone(), 8000)
    for name in ("soxr", "soundfile"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
        with pytest.raises(MissingDependencyError, match=rf"{name}.*\[speech\]"):
            read_audio(path, RATE)
