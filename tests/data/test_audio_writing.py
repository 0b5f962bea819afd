import json
import sys

import numpy as np
import pytest

from transformer.data.audio import augmentation
from transformer.data.audio.reading import read_audio
from transformer.data.audio.saving import require_sound_file, save_sound
from transformer.data.audio.transcripts import Segment, Transcript
from transformer.data.audio.windows import Windows
from transformer.data.audio.writing import WRITERS
from transformer.errors import ConfigError, MissingDependencyError

TRANSCRIPT = Transcript(
    (
        Segment(0.0, 1.9996, " Hello,\tyou", (5, 6), {"average_log_prob": -0.5}),
        Segment(3661.25, 3662.0, " --> <i>A & B\nend"),
    ),
    3700.0,
    "en",
    "a.wav",
)


@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        ("txt", "Hello, you\n--> <i>A & B end\n"),
        (
            "srt",
            "1\n00:00:00,000 --> 00:00:02,000\nHello, you\n\n"
            "2\n01:01:01,250 --> 01:01:02,000\n-> <i>A & B end\n",
        ),
        (
            "vtt",
            "WEBVTT\n\n00:00:00.000 --> 00:00:02.000\nHello, you\n\n"
            "01:01:01.250 --> 01:01:02.000\n--&gt; &lt;i&gt;A &amp; B end\n",
        ),
        (
            "tsv",
            "start\tend\ttext\n0\t2000\tHello, you\n3661250\t3662000\t--> <i>A & B end\n",
        ),
    ],
)
def test_formats(ending, expected):
    assert WRITERS[ending](TRANSCRIPT) == expected


def test_json():
    found = json.loads(WRITERS["json"](TRANSCRIPT))
    assert found["text"] == "Hello, you --> <i>A & B end"
    assert (found["name"], found["language"], found["seconds"]) == ("a.wav", "en", 3700.0)
    first = {"start": 0.0, "end": 2.0, "text": "Hello,\tyou", "tokens": [5, 6]}
    assert found["segments"][0] == {**first, "average_log_prob": -0.5}


def test_nothing_was_said():
    nothing = Transcript(())
    texts = {ending: write(nothing) for ending, write in WRITERS.items()}
    assert texts.pop("json").startswith("{")
    assert texts == {"txt": "", "srt": "", "vtt": "WEBVTT\n", "tsv": "start\tend\ttext\n"}


@pytest.mark.parametrize(
    ("ending", "most"), [("wav", 1 / 32767), ("flac", 1 / 32767), ("OGG", 0.1)]
)
def test_sounds(tmp_path, ending, most):
    pytest.importorskip("soundfile", reason="writes sounds")
    path = tmp_path / f"a.{ending}"
    samples = 0.5 * np.sin(np.arange(4000, dtype=np.float32) / 10)
    require_sound_file(path, "--output")
    save_sound(path, samples, 8000)
    np.testing.assert_allclose(read_audio(path, 8000), samples, atol=most)


def test_sounds_that_cannot_be_written(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"--output is a.mp3: .*ends with .wav, .flac, .ogg"):
        require_sound_file(tmp_path.relative_to(tmp_path) / "a.mp3", "--output")
    for name in ("soundfile", "soxr"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=r"soundfile.*\[speech\]"):
        save_sound(tmp_path / "a.wav", np.zeros(9, np.float32), 8000)
    assert not (tmp_path / "a.wav").exists()
    with pytest.raises(MissingDependencyError, match=r"soxr.*\[speech\]"):
        augmentation.resampled(np.zeros(9, np.int16), 1.1)


def test_windows_that_cannot_work():
    with pytest.raises(ConfigError, match="temperatures is empty: give at least one"):
        Windows(temperatures=()).check()
    with pytest.raises(ConfigError, match="median_width is 4: give an odd number"):
        Windows(median_width=4).check()
