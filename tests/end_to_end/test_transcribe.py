"""Recordings written down by a Whisper with random weights: formats, flags, and strange files."""

import json

import numpy as np
import pytest

from tests.end_to_end.conftest import call, fails
from tests.interop import whispers
from transformer.data.audio.writing import WRITERS
from transformer.runs.importing import import_published

soundfile = pytest.importorskip("soundfile", reason="reads recordings")
pytest.importorskip("soxr", reason="changes the sampling rate")
pytest.importorskip("safetensors", reason="weights are read from its files")
torch = pytest.importorskip("torch", reason="torch makes the checkpoint")
transformers = pytest.importorskip("transformers", reason="transformers makes the checkpoint")
pytestmark = pytest.mark.filterwarnings("ignore")
PLAIN = "--temperatures=0"
RATES = {"a.wav": (16_000, 1), "b.flac": (8000, 1), "c.wav": (96_000, 6), "d.ogg": (16_000, 2)}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder, workdir = (tmp_path_factory.mktemp(name) for name in ("published", "run"))
    model = whispers.theirs(transformers, torch, encoder_layers=1, decoder_layers=1, d_model=16)
    whispers.publish(transformers, model, folder)
    import_published(folder, workdir)
    return workdir


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Recordings that are read, and such that are not."""
    folder = tmp_path_factory.mktemp("recordings")
    for number, (name, (rate, channels)) in enumerate(RATES.items()):
        samples = whispers.sound(1.0 + 0.7 * number, number)
        samples = np.interp(np.arange(0, len(samples), 16_000 / rate), range(len(samples)), samples)
        soundfile.write(folder / name, np.stack([samples] * channels, axis=1), rate)
    soundfile.write(folder / "silence.wav", np.zeros(16_000), 16_000)
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("no sound at all")
    (folder / "cut.flac").write_bytes((folder / "b.flac").read_bytes()[:9000])
    broken = np.where(np.arange(16_000) == 8000, np.nan, 0.1).astype(np.float32)
    soundfile.write(folder / "nan.wav", broken, 16_000, subtype="FLOAT")
    return folder


def transcribed(workdir, *flags):
    done = call("transcribe.py", f"--workdir={workdir}", PLAIN, *map(str, flags))
    assert done.returncode == 0, done.stderr
    return done.stdout


def as_json(workdir, *flags):
    return json.loads(transcribed(workdir, "--format=json", *flags))


def test_all_formats_say_the_same(workdir, folder, tmp_path):
    """Of several files, of any rate and number of channels, in a folder."""
    paths = [folder / name for name in RATES]
    for name in WRITERS:
        transcribed(workdir, f"--format={name}", f"--output={tmp_path}", "--timestamps", *paths)
    for path in paths:
        texts = {name: (tmp_path / f"{path.stem}.{name}").read_text() for name in WRITERS}
        told = json.loads(texts["json"])
        count = len(told["segments"])
        assert count > 0
        assert told["seconds"] == pytest.approx(1.0 + 0.7 * list(RATES).index(path.name), abs=1e-3)
        assert texts["txt"].split() == " ".join(part["text"] for part in told["segments"]).split()
        assert texts["srt"].count(" --> ") == texts["vtt"].count(" --> ") == count
        assert len(texts["tsv"].splitlines()) == count + 1


def test_a_text_does_not_depend_on_the_others(workdir, folder):
    paths = [folder / name for name in RATES]
    together = transcribed(workdir, *paths)
    one_by_one = transcribed(workdir, "--batch_size=1", *paths)
    assert together == one_by_one
    assert [line.split("\t")[0] for line in together.splitlines()] == list(map(str, paths))
    assert transcribed(workdir, paths[0]) == together.splitlines()[0].split("\t")[1] + "\n"


def test_what_is_asked_for(workdir, folder):
    path = folder / "b.flac"
    found = as_json(workdir, "--language=de", path)
    assert found["language"] == "de"
    for flag in ("--language=fr", "--task=translate", "--prompt=abcdef", "--beam_size=2"):
        other = as_json(workdir, *([] if "language" in flag else ["--language=de"]), flag, path)
        assert other["segments"] != found["segments"], flag
    lines = transcribed(workdir, "--timestamps", path).splitlines()
    assert len(lines) == len(as_json(workdir, path)["segments"])
    assert all(line.startswith("[00:0") and " --> 00:0" in line for line in lines)
    short = folder / "a.wav"
    assert len(transcribed(workdir, short).splitlines()) == 1
    assert transcribed(workdir, "--timestamps", short).startswith("[00:00.")


def test_a_text_that_seems_wrong_is_written_again(workdir, folder):
    """Random models repeat themselves; seeds decide what is drawn."""
    path, hot = folder / "b.flac", "--temperatures=0,1"
    found = [as_json(workdir, hot, f"--seed={seed}", path)["segments"] for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    warmth = {part["temperature"] for parts in found for part in parts}
    assert 1.0 in warmth
    assert {part["temperature"] for part in as_json(workdir, path)["segments"]} == {0.0}


def test_words_have_times(workdir, folder):
    path = folder / "d.ogg"
    found = as_json(workdir, "--word_timestamps", path)
    plain = as_json(workdir, path)
    for part, other in zip(found["segments"], plain["segments"], strict=True):
        words = part.pop("words")
        assert part == other
        assert "".join(word["text"] for word in words) == part["text"].replace(" ", "")
        times = [time for word in words for time in (word["start"], word["end"])]
        assert times == sorted(times)
        assert 0.0 <= times[0] <= times[-1] <= found["seconds"]
    flags = f"--workdir={workdir}", "--word_timestamps", str(path)
    fails(call("transcribe.py", *flags), 2, "add --format=json")


def test_silence_is_written_down(workdir, folder):
    assert as_json(workdir, folder / "silence.wav")["seconds"] == 1.0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty.wav", "empty.wav is empty"),
        ("text.wav", "text.wav is no recording"),
        ("cut.flac", "cut.flac is"),
        ("nan.wav", "nan.wav has the sample nan at 0.500 seconds"),
        ("nothing.wav", "nothing.wav does not exist"),
    ],
)
def test_what_cannot_be_heard_is_named(workdir, folder, name, message):
    flags = f"--workdir={workdir}", PLAIN, str(folder / "a.wav"), str(folder / name)
    fails(call("transcribe.py", *flags), 2, message)


def test_what_cannot_be_asked_for(workdir, folder, tmp_path):
    path = str(folder / "a.wav")
    for flags, message in (
        ([], "no recording is given"),
        (["--language=xx", path], "the model knows de, en, fr"),
        (["--temperatures=hot", path], "--temperatures is hot"),
        ([f"--output={tmp_path}", path, path], "several recordings are named a"),
    ):
        fails(call("transcribe.py", f"--workdir={workdir}", *flags), 2, message)
