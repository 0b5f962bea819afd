"""Learning to hear: stopped and resumed with the same bits, evaluated, and writing recordings."""

import json

import numpy as np
import pytest

from tests.end_to_end.conftest import ROOT, call, fails
from tests.runs import assert_same_run, logged
from transformer.tasks.parts.protocol import Shown
from transformer.tasks.transcription import Transcription

soundfile = pytest.importorskip("soundfile", reason="reads recordings")
pytest.importorskip("soxr", reason="changes the speed of samples")
pytest.importorskip("jiwer", reason="counts errors")
STEPS, RATE = 4, 2000
FLAGS = [
    f"--config={ROOT / 'configs' / 'speech_digits.py'}",
    "--config.model.num_encoder_layers=1",
    "--config.model.num_heads=2",
    "--config.model.width=8",
    "--config.model.feed_forward_width=8",
    f"--config.task.features.sampling_rate={RATE}",
    "--config.task.features.num_mels=8",
    "--config.task.features.window=64",
    "--config.task.features.hop=32",
    "--config.task.max_seconds=2.0",
    "--config.task.batch_seconds=6.0",
    "--config.task.rows_multiple=4",
    "--config.task.num_shapes=1",
    "--config.task.beam_size=2",
    "--config.optimizer.schedule=constant",
    "--config.optimizer.warmup=1 steps",
    f"--config.train.duration={STEPS}",
    "--config.train.steps_per_dispatch=1",
    "--config.train.log_every=1",
    "--config.train.save_every=2",
    "--config.train.evaluate_every=2",
    "--config.train.tensorboard=False",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Noises of some length, each with a text."""
    folder, generator = tmp_path_factory.mktemp("recordings"), np.random.default_rng(0)
    lines = []
    for number in range(12):
        samples = generator.normal(size=RATE * (3 + number % 4) // 4) * 0.1
        soundfile.write(folder / f"{number}.wav", samples, RATE)
        lines.append(json.dumps({"audio": f"{number}.wav", "text": "ab ba"[: 2 + number % 4]}))
    (folder / "all.jsonl").write_text("\n".join(lines))
    soundfile.write(folder / "long.flac", generator.normal(size=RATE * 9 // 2) * 0.1, RATE)
    return folder


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("speech") / "run"
    done = call(
        "train.py", *FLAGS, f"--config.task.train={folder / 'all.jsonl'}", f"--workdir={workdir}"
    )
    assert done.returncode == 0, done.stderr
    return workdir


def test_it_ends_with_scores_transcripts_and_a_picture(trained):
    last = {line["split"]: line for line in logged(trained)}
    assert last["final"]["word_error_rate"] >= 0
    lines = (trained / "transcripts.tsv").read_text().splitlines()
    assert lines[0] == "recording\treference\toutput"
    assert len(lines) == 2
    assert (trained / "alignment.png").stat().st_size > 10_000


def test_resumed_with_the_same_bits(trained, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(Transcription, "show", lambda *arguments: Shown("", {}))
    for steps in (2, STEPS):
        done = call(
            "train.py",
            *FLAGS,
            f"--config.task.train={folder / 'all.jsonl'}",
            f"--config.train.duration={steps}",
            f"--workdir={tmp_path / 'run'}",
        )
        assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / "run", trained, final=False)


def test_other_recordings_are_scored(trained, folder):
    done = call("evaluate.py", f"--workdir={trained}", f"--path={folder / 'all.jsonl'}", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["character_error_rate"] >= 0
    too_long = folder / "long.jsonl"
    too_long.write_text(json.dumps({"audio": "long.flac", "text": "ab"}))
    done = call("evaluate.py", f"--workdir={trained}", f"--path={too_long}")
    fails(done, 2, "has 4.5 seconds, and config.task.max_seconds is 2")
    arrays = {"x": np.zeros((40, 3), np.float32), "n": np.full(4, 10), "t": np.array(["ab"] * 4)}
    np.savez(folder / "a.npz", **{f"train_{name}": values for name, values in arrays.items()})
    done = call("evaluate.py", f"--workdir={trained}", f"--path={folder / 'a.npz'}")
    fails(done, 2, "frames of 3 numbers, and the model reads 8")


def test_a_long_recording_is_heard_in_pieces(trained, folder):
    done = call("transcribe.py", f"--workdir={trained}", str(folder / "long.flac"))
    assert done.returncode == 0, done.stderr
    flags = f"--workdir={trained}", "--language=en", str(folder / "long.flac")
    fails(call("transcribe.py", *flags), 2, "--language is for models that read windows")


def test_what_cannot_be_trained_is_refused(folder, tmp_path):
    data = f"--config.task.train={folder / 'all.jsonl'}"
    for flags, message in (
        (["--config.task.ctc_weight=0.0"], "trains no CTC: give decoding=attention"),
        (["--config.task.ctc_weight=1.0"], "trains no decoder: give decoding=ctc"),
        (["--config.task.held_out=*nobody*"], "none of the 12 recordings"),
        (["--config.task.held_out=*"], "all of the 12 recordings"),
        (["--config.task.max_length=2"], "no recording is left"),
        *(
            ([f"--config.model.num_features={wrong}"], f"is {wrong}, and the data have 8: leave it")
            for wrong in (7, 9)
        ),
    ):
        done = call("train.py", *FLAGS, data, *flags, f"--workdir={tmp_path / 'run'}")
        fails(done, 2, message)
