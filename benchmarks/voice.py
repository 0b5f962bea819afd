"""What a recogniser that learned from other voices hears of a voice.

python benchmarks/voice.py --workdir=runs/voice --recogniser=runs/digits

The texts are those that the voice validates on. Recordings of them, recordings whose spectrograms
lost their phases, those that also went through the codec, and what the voice makes of the texts are
heard by the same recogniser. The Fréchet distance compares the vectors of its encoder with those of
the recordings.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

# Recordings that are heard at once.
BATCH = 50


class Hearing:
    """A recogniser of digits."""

    def __init__(self, workdir: Path) -> None:
        from transformer.runs.opening import open_run

        self.run = open_run(workdir)
        self.rate = self.run.task.recordings.features.sampling_rate
        self.tokenizer = self.run.task.load_tokenizer(workdir)
        self.how = self.run.task.recognition(self.tokenizer)

    def __call__(self, sounds: Sequence[np.ndarray], rate: int) -> tuple[list[str], np.ndarray]:
        """The text of each sound, and all vectors of the encoder."""
        import soxr

        from transformer.decoding.recognize import encoded, recognize

        texts, vectors, run = [], [], self.run
        resampled = [soxr.resample(sound, rate, self.rate) for sound in sounds]
        longest = max(map(len, resampled))
        for first in range(0, len(sounds), BATCH):
            some = resampled[first : first + BATCH]
            samples = np.zeros((len(some), longest), np.float32)
            for row, sound in zip(samples, some, strict=True):
                row[: len(sound)] = sound
            lengths = np.array([len(one) for one in some])
            frames, counts = run.task.recordings.features(samples, lengths)
            memory, _, lengths = encoded(run.model, run.params, frames, counts)
            vectors += [row[:n] for row, n in zip(np.asarray(memory), lengths, strict=True)]
            found = recognize(run.model, run.params, frames, counts, self.how)
            texts += [self.tokenizer.decode(one.ids) for one in found]
        return texts, np.concatenate(vectors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--recogniser", type=Path, required=True)
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--brief", action="store_true", help="only recorded and spoken")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    from transformer.runtime import prepare_process

    prepare_process()
    from transformer.decoding.vocoder import samples_of
    from transformer.runs.opening import open_run
    from transformer.scoring.frechet import frechet_distance
    from transformer.scoring.recognition import recognition_scores
    from transformer.tasks.parts.speaking import Wish

    run, hear = open_run(args.workdir), Hearing(args.recogniser)
    data = run.task.load(args.workdir)
    codec, spoken = data.codec, data.validation
    rate = codec.features.sampling_rate
    recordings = [spoken.recordings[index] for index in range(len(spoken.recordings))]
    wish = Wish(temperature=args.temperature, seed=args.seed)
    written = run.task.written(run.model, run.params, data.vocabulary, spoken.prompts, wish)

    def without_phases(recording: np.ndarray) -> np.ndarray:
        frames, counts = codec.frames([recording])
        return samples_of(np.asarray(frames[0, : counts[0]]), codec.features)

    # Made one after another, because finding phases takes most of the time.
    kinds = {
        "recorded": lambda: [one.astype(np.float32) / 32768.0 for one in recordings],
        "spoken by the voice": lambda: [
            codec.sound(row) if len(row) else np.zeros(rate, np.float32) for row in written
        ],
        "recorded, codec, phases found": lambda: [codec.sound(row[:-1]) for row in spoken.codes],
        "recorded, phases found": lambda: [without_phases(one) for one in recordings],
    }
    if args.brief:
        kinds = dict(list(kinds.items())[:2])
    known = set(run.task.files.voices)
    references = [
        " ".join(word for word in text.split() if word not in known)
        for text in spoken.recordings.transcripts
    ]
    print(f"{len(references)} texts; exact, word error rate (percent), Fréchet distance, seconds")
    real = None
    for name, make in kinds.items():
        sounds = make()
        texts, vectors = hear(sounds, rate)
        real = vectors if real is None else real
        scores = recognition_scores(texts, references)
        seconds = sum(map(len, sounds)) / rate / len(sounds)
        print(
            f"{name:<30} {scores['exact_match']:6.1f} {scores['word_error_rate']:6.2f} "
            f"{frechet_distance(real, vectors):8.3f} {seconds:6.2f}",
            flush=True,
        )
        for text, reference in zip(texts, references, strict=True):
            if name.startswith("spoken") and text != reference:
                print(f"  heard {text!r}, not {reference!r}")


if __name__ == "__main__":
    main()
