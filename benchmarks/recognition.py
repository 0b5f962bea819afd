"""Scores of recognisers on sets that no recipe was chosen on, and of trivial methods.

    python benchmarks/recognition.py --workdir=runs/digits
    python benchmarks/recognition.py --baselines=fsdd.npz

The first scores a run of `configs/speech_digits.py` on a third set of voices and strings
(`data.embedded.voices.digits_to_test`), as they are and with pauses. The second is the accuracy on
the Free Spoken Digit Dataset of always the same digit, and of the digit whose mean log-mel over
recordings to train on is nearest (Euclidean distance; 40 bands): of the takes that its authors hold
out, and of each speaker when the others are known.
"""

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

# The longest recording that the recipe hears at once, and the pauses, in seconds.
LONGEST, BETWEEN, AROUND = 5.0, 1.0, 0.5
# The most characters of two joined strings, and one more.
MOST_TOKENS = 128
# Noise is so much weaker than the voices.
NOISE_BELOW = 50.0


def held(names: list[str], texts: list[str], samples: list[np.ndarray]):
    """Recordings in memory."""
    from transformer.data.audio.transcribed import HeldRecordings

    lengths = np.array([len(each) for each in samples])
    return HeldRecordings(names, texts, lengths, np.concatenate(samples))


def joined(recordings, rate: int, pause: float):
    """Neighbours joined with silence between them, as far as both fit into a recording."""
    silence, names, texts, made = np.zeros(round(pause * rate), np.int16), [], [], []
    for one, two in itertools.pairwise(range(len(recordings))):
        samples = np.concatenate([recordings[one], silence, recordings[two]])
        if len(samples) <= LONGEST * rate:
            made.append(samples)
            names.append(f"{recordings.names[one]} / {recordings.names[two]}")
            texts.append(f"{recordings.transcripts[one]} {recordings.transcripts[two]}")
    return held(names, texts, made)


def changed(recordings, change):
    """The same recordings with their samples changed."""
    made = [change(recordings[index]) for index in range(len(recordings))]
    return held(recordings.names, recordings.transcripts, made)


def conditions(rate: int) -> Iterator[tuple[str, object]]:
    """The third set in several conditions."""
    from transformer.data.audio.augmentation import with_noise
    from transformer.data.embedded.voices import digits_to_test

    test, generator = digits_to_test(rate), np.random.default_rng(0)
    yield "other voices and strings", test
    around = round(AROUND * rate)
    yield "silence at both ends", changed(test, lambda samples: np.pad(samples, around))
    pairs = joined(test, rate, BETWEEN)
    yield "a second of silence between two", pairs
    noisy = changed(pairs, lambda samples: with_noise(samples, NOISE_BELOW, generator))
    yield f"the same with noise, {NOISE_BELOW:g} dB weaker", noisy


def score_run(workdir: Path) -> None:
    """Prints the scores of a run in every condition."""
    from transformer.runs.opening import open_run
    from transformer.tasks.parts.recording_files import SpeechData
    from transformer.tasks.parts.recordings import Limits, tokenized

    run = open_run(workdir, "last")
    task, rate = run.task, run.task.recordings.features.sampling_rate
    tokenizer = task.load_tokenizer(workdir)
    for name, recordings in conditions(rate):
        limits = Limits(float(rate), LONGEST, MOST_TOKENS)
        part = tokenized(tokenizer, recordings, limits, [], training=False)
        data = SpeechData(task.recordings, tokenizer, part, part)
        scores = task.scores(run.model, run.params, data)
        shown = ", ".join(f"{key} {value:.2f}" for key, value in scores.items())
        print(f"{name:<36} {len(recordings):>4} recordings: {shown}", flush=True)


def nearest(features: np.ndarray, digits: np.ndarray, is_test: np.ndarray) -> float:
    """How often the nearest mean is the right digit's, in percent."""
    means = np.stack([features[~is_test & (digits == digit)].mean(0) for digit in range(10)])
    distances = np.square(features[is_test][:, None] - means).sum(-1)
    return 100.0 * float(np.mean(distances.argmin(1) == digits[is_test]))


def score_baselines(path: Path) -> None:
    """Prints the accuracy of trivial methods."""
    from transformer.data.audio.features import LogMel
    from transformer.ops.audio import log_mel

    with np.load(path) as arrays:
        samples, lengths, names = (arrays[key] for key in ("samples", "lengths", "names"))
    mel, ends = LogMel(sampling_rate=8000, num_mels=40, window=256, hop=64), lengths.cumsum()
    longest, features = int(lengths.max()), []
    for end, length in zip(ends, lengths, strict=True):
        padded = np.zeros((1, -(-longest // mel.hop) * mel.hop), np.float32)
        padded[0, :length] = samples[end - length : end] / 32768.0
        features.append(np.asarray(log_mel(padded, mel.filters(), mel.hop))[0, : length // mel.hop])
    means = np.stack([each.mean(0) for each in features])
    parts = [str(name).split("_") for name in names]
    digits, speakers = np.array([int(part[0]) for part in parts]), np.array([p[1] for p in parts])
    splits = {"takes 0 to 4": np.array([int(part[2]) < 5 for part in parts])}
    splits |= {name: speakers == name for name in sorted(set(speakers))}
    for name, is_test in splits.items():
        most = np.bincount(digits[~is_test]).argmax()
        same = 100.0 * np.mean(digits[is_test] == most)
        near = nearest(means, digits, is_test)
        print(f"{name:<14} always {most}: {same:.1f}, nearest: {near:.1f}")


def main() -> None:
    """Scores what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--workdir", type=Path)
    what.add_argument("--baselines", type=Path)
    asked = parser.parse_args()
    if asked.workdir:
        score_run(asked.workdir)
    else:
        score_baselines(asked.baselines)


if __name__ == "__main__":
    main()
