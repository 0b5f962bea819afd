"""Learning to speak: a codec, a voice over its codes, resumed with the same bits, and speaking."""

import json

import numpy as np
import pytest

from tests.end_to_end.conftest import ROOT, call, fails, nothing_shown
from tests.runs import assert_same_run, logged
from transformer.runs.opening import open_run
from transformer.tasks.parts.outputs import apply
from transformer.tasks.parts.speaking import Wish

soundfile = pytest.importorskip("soundfile", reason="reads and writes recordings")
pytest.importorskip("soxr", reason="changes the rate of samples")
pytest.importorskip("safetensors", reason="keeps the codec")
STEPS, RATE = 4, 2000
TRAINING = [
    "--config.model.num_layers=1",
    "--config.model.num_heads=2",
    "--config.model.width=8",
    "--config.model.feed_forward_width=8",
    "--config.optimizer.schedule=constant",
    "--config.optimizer.warmup=1 steps",
    f"--config.train.duration={STEPS}",
    "--config.train.steps_per_dispatch=1",
    "--config.train.log_every=1",
    "--config.train.save_every=2",
    "--config.train.evaluate_every=2",
    "--config.train.tensorboard=False",
]
CODEC = [
    f"--config={ROOT / 'configs' / 'audio_tokens.py'}",
    *TRAINING,
    "--config.model.levels=(3,3)",
    f"--config.task.features.sampling_rate={RATE}",
    "--config.task.features.num_mels=8",
    "--config.task.features.window=64",
    "--config.task.features.hop=32",
    "--config.task.piece_seconds=0.2",
    "--config.task.batch_size=4",
]
VOICE = [
    f"--config={ROOT / 'configs' / 'voice_digits.py'}",
    *TRAINING,
    "--config.model.context=64",
    "--config.task.batch_tokens=256",
    "--config.task.rows_multiple=4",
    "--config.task.num_shapes=1",
]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Noises of some length, each with words."""
    folder, generator = tmp_path_factory.mktemp("recordings"), np.random.default_rng(0)
    lines = []
    for number in range(12):
        samples = generator.normal(size=RATE * (2 + number % 3) // 4) * 0.1
        soundfile.write(folder / f"{number}.wav", samples, RATE)
        lines.append(json.dumps({"audio": f"{number}.wav", "text": ("one", "two one")[number % 2]}))
    (folder / "all.jsonl").write_text("\n".join(lines))
    return folder / "all.jsonl"


@pytest.fixture(scope="module")
def codec(recordings, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("codec") / "run"
    done = call("train.py", *CODEC, f"--config.task.train={recordings}", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    return workdir


@pytest.fixture(scope="module")
def voice(recordings, codec, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("voice") / "run"
    done = call("train.py", *of_voice(recordings, codec), f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    return workdir


def of_voice(recordings, codec):
    return [*VOICE, f"--config.task.train={recordings}", f"--config.task.codec={codec}"]


def test_they_end_with_files_and_pictures(codec, voice):
    final = {line["split"]: line for line in logged(codec)}["final"]
    assert 1 <= final["codes_used"] <= 9
    assert 0 <= final["bits_per_code"] <= np.log2(9)
    assert (codec / "codec.png").stat().st_size > 10_000
    assert (codec / "codec.safetensors").read_bytes() == (voice / "codec.safetensors").read_bytes()
    assert json.loads((voice / "words.json").read_text())["words"] == ["one", "two"]
    assert (voice / "spoken.png").stat().st_size > 10_000


@pytest.mark.parametrize("which", ["codec", "voice"])
def test_resumed_with_the_same_bits(which, recordings, codec, voice, tmp_path):
    """A voice keeps its own copy of the codec."""
    flags, whole = [*CODEC, f"--config.task.train={recordings}"], codec
    if which == "voice":
        flags, whole = of_voice(recordings, codec), voice
    with nothing_shown():
        for steps in (2, STEPS):
            done = call(
                "train.py",
                *flags,
                f"--config.train.duration={steps}",
                f"--workdir={tmp_path / 'run'}",
            )
            assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / "run", whole, final=False)


def test_it_writes_what_it_scores_best(voice):
    """One code at a time with a cache, as by reading everything again for each code."""
    run = open_run(voice)
    data = run.task.load(voice)
    prompts = [data.vocabulary.prompt(words) for words in (["one"], ["two", "one"])]
    found = run.task.written(run.model, run.params, data.vocabulary, prompts, Wish(temperature=0.0))
    read = np.zeros((2, run.model.context), np.int32)
    for row, prompt, codes in zip(read, prompts, found, strict=True):
        row[: len(prompt) + len(codes)] = [*prompt, *codes]
    logits, _ = apply(run.model, "__call__", run.params, read)
    for row, prompt, codes in zip(np.asarray(logits).argmax(-1), prompts, found, strict=True):
        best = row[len(prompt) - 1 :]
        np.testing.assert_array_equal(best[: len(codes)], codes)
        is_full = len(codes) == run.model.context - 3
        assert is_full or best[len(codes)] >= data.vocabulary.num_codes


def test_it_speaks(voice, tmp_path):
    out = tmp_path / "out.wav"
    flags = f"--workdir={voice}", f"--output={out}", "--temperature=2"
    done = call("speak.py", *flags, "Two, one.")
    assert done.returncode == 0, done.stderr
    samples, rate = soundfile.read(out)
    assert rate == RATE
    assert len(samples) % 64 == 0
    assert np.abs(samples).max() > 0
    written = out.read_bytes()
    assert call("speak.py", *flags, "two one").returncode == 0
    assert out.read_bytes() == written
    # Longer than anything it has heard: in parts.
    done = call("speak.py", f"--workdir={voice}", f"--output={tmp_path / 'long.flac'}", "one " * 7)
    assert done.returncode == 0, done.stderr
    assert soundfile.info(tmp_path / "long.flac").format == "FLAC"


def test_other_recordings_are_scored(codec, voice, recordings):
    for workdir in (codec, voice):
        done = call("evaluate.py", f"--workdir={workdir}", f"--path={recordings}", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["loss"] > 0


def test_what_cannot_be_spoken_is_refused(codec, voice, tmp_path):
    out = f"--output={tmp_path / 'out.wav'}"
    for flags, message in (
        ([f"--workdir={voice}", out, "one tree"], "'tree': it knows one, two"),
        ([f"--workdir={voice}", out, " . "], "nothing to say"),
        ([f"--workdir={voice}", out, "--voice=adam", "one"], "'adam'"),
        ([f"--workdir={voice}", out], "0 texts"),
        ([f"--workdir={voice}", out, "one", "two"], "2 texts"),
        ([f"--workdir={voice}", f"--output={tmp_path / 'no' / 'a.wav'}", "one"], "does not exist"),
        ([f"--workdir={voice}", f"--output={tmp_path / 'a.mp3'}", "one"], ".wav, .flac, .ogg"),
        ([f"--workdir={codec}", out, "one"], "configs/voice_digits.py"),
    ):
        fails(call("speak.py", *flags), 2, message)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_trained_is_refused(recordings, codec, tmp_path):
    workdir = f"--workdir={tmp_path / 'run'}"
    voice = of_voice(recordings, codec)
    train = f"--config.task.train={recordings}"
    for flags, message in (
        ([*voice, f"--config.task.codec={tmp_path}"], "configs/audio_tokens.py"),
        ([*voice, "--config.task.context=4", "--config.model.context=4"], "no recording is left"),
        ([*VOICE, "--config.task.voices=()"], "give at least one voice"),
        ([*VOICE, "--config.task.voices=('adam','nobody')"], "nobody"),
        ([*CODEC, train, "--config.task.features.scaling=utterance"], "'whisper'"),
        ([*CODEC, train, "--config.model.num_features=9"], "num_features"),
    ):
        fails(call("train.py", *flags, workdir), 2, message)
