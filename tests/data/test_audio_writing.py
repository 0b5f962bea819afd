import json

import pytest

from transformer.data.audio.transcripts import Segment, Transcript
from transformer.data.audio.writing import WRITERS

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
