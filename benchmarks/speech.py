"""Ten minutes of speech written down by Whisper: `transformers` and `ctranslate2` in turns.

    pip install -e '.[interop,speech]' torch==2.13.0 transformers ctranslate2
    python benchmarks/speech.py --model=FOLDER --recordings=FOLDER
    python benchmarks/speech.py --model=FOLDER --recordings=FOLDER --batch_size=1
    python benchmarks/speech.py --job=features
    taskset -c 1 python benchmarks/speech.py ... --clock=processor

The model is a folder of CTranslate2 with a Whisper (`model.bin`, `config.json`, a vocabulary); all
three have its weights in float32, and `ctranslate2` also as it likes them, in 8 bits. The
recordings of the folder, one after another with half a second between them, are repeated to ten
minutes and cut into windows of 30 seconds. Each window is written down by itself, greedily and
without times, with the suppressed tokens of the model; that the tokens are the same is checked. A
turn begins with samples in memory and ends with all tokens. On a machine with other work,
processor time on one core is steadier than the time of a clock; on several it also counts threads
that only wait.

What differs: `ctranslate2` has no features of its own and takes those of `transformers`, computed
with PyTorch; ours pads outputs to one length, so that there is one compiled program. `features`
compares the log-mel features of the same windows, of noise where there is no folder.
"""

import argparse
import functools
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from alternate import alternate, serve

RATE, SECONDS, WINDOW, PAUSE = 16_000, 600, 30, 0.5
MOST_TOKENS = 224
Work = Callable[[], list[list[int]]]


def windows_of(folder: str | None) -> np.ndarray:
    """Ten minutes of speech as `[windows, samples]`; noise without a folder."""
    if folder is None:
        return (
            np.random.default_rng(0).normal(0, 0.1, (SECONDS // WINDOW, WINDOW * RATE)).astype("f4")
        )
    from transformer.data.audio.reading import ENDINGS, read_audio

    paths = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in ENDINGS)
    pause = np.zeros(round(PAUSE * RATE), np.float32)
    sound = np.concatenate([part for path in paths for part in (read_audio(path, RATE), pause)])
    return np.resize(sound, SECONDS * RATE).reshape(-1, WINDOW * RATE)


def batches(windows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """All windows, some at a time."""
    return (windows[first : first + size] for first in range(0, len(windows), size))


def read_model(folder: str):
    """The model and the tokens in front of a text: English, transcribe, no times."""
    from transformer.interop.formats.ctranslate2_models import read_ctranslate2

    model = read_ctranslate2(Path(folder))
    said = model.generation
    names = ["<|en|>", "<|transcribe|>"] if said["is_multilingual"] else []
    prompt = [said["decoder_start_token_id"], *(model.vocabulary[name] for name in names)]
    return model, [*prompt, said["no_timestamps_token_id"]]


def ours(args: argparse.Namespace, windows: np.ndarray) -> Work:
    from transformer.runtime import prepare_process

    prepare_process()
    import jax
    import jax.numpy as jnp

    from transformer.data.audio.features import LogMel
    from transformer.decoding.prompted import Prompts, Settings, write
    from transformer.decoding.rows import encoded
    from transformer.interop.opening import read_published
    from transformer.ops.transcript_rules import TranscriptRules
    from transformer.training.selection import from_paths

    published, prompt = read_published(args.model), read_model(args.model)[1]
    said = read_model(args.model)[0].generation
    model, params = published.family.model(**published.model), from_paths(published.params)
    features = LogMel(num_mels=model.num_features, pad_seconds=float(WINDOW), scaling="whisper")
    rules = TranscriptRules(tuple(said["suppress_tokens"]), tuple(said["begin_suppress_tokens"]))
    settings = Settings(said["eos_token_id"], MOST_TOKENS, rules)
    size = args.batch_size
    prompts = Prompts(np.tile(np.int32(prompt), (size, 1)), np.full(size, len(prompt), np.int32))
    limits, keys = np.full(size, MOST_TOKENS, np.int32), jax.random.split(jax.random.key(0), size)

    @jax.jit
    def encode(params, samples):
        heard, _ = features(samples, jnp.full(len(samples), samples.shape[1]))
        return encoded(model, params, heard)

    def work() -> list[list[int]]:
        found = []
        for samples in batches(windows, size):
            memory = encode(params, samples)
            written = write(model, params, memory, prompts, limits, jnp.ones(()), keys, settings)
            rows = zip(np.asarray(written.tokens), np.asarray(written.lengths), strict=True)
            found += [tokens[:length].tolist() for tokens, length in rows]
        return found

    return work


def extractor(num_mels: int):
    """Features of `transformers`, with PyTorch."""
    import torch
    from transformers import WhisperFeatureExtractor

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    extract = WhisperFeatureExtractor(feature_size=num_mels)
    return lambda samples: extract(list(samples), sampling_rate=RATE, return_tensors="np")[
        "input_features"
    ].astype(np.float32)


def theirs(args: argparse.Namespace, windows: np.ndarray) -> Work:
    import torch
    import transformers

    published, prompt = read_model(args.model)
    config = transformers.WhisperConfig(**published.config)
    model = transformers.WhisperForConditionalGeneration(config).eval()
    arrays = {name: torch.tensor(published.arrays[name]) for name in published.arrays}
    model.load_state_dict(arrays, strict=False)
    said = {key: value for key, value in published.generation.items() if key != "max_length"}
    model.generation_config.update(**said, max_new_tokens=MOST_TOKENS)
    extract = extractor(config.num_mel_bins)

    def work() -> list[list[int]]:
        found = []
        for samples in batches(windows, args.batch_size):
            with torch.inference_mode():
                rows = model.generate(
                    torch.tensor(extract(samples)),
                    decoder_input_ids=torch.tensor([prompt] * len(samples)),
                    do_sample=False,
                    num_beams=1,
                )
            found += rows.tolist()
        return found

    return work


def their_ctranslate2(args: argparse.Namespace, windows: np.ndarray, kind: str) -> Work:
    import ctranslate2

    published, prompt = read_model(args.model)
    cores = len(os.sched_getaffinity(0))
    model = ctranslate2.models.Whisper(args.model, compute_type=kind, intra_threads=cores)
    extract = extractor(published.config["num_mel_bins"])

    def work() -> list[list[int]]:
        found = []
        for samples in batches(windows, args.batch_size):
            heard = ctranslate2.StorageView.from_array(extract(samples))
            longest = MOST_TOKENS + len(prompt)
            rows = model.generate(heard, [prompt] * len(samples), beam_size=1, max_length=longest)
            found += [row.sequences_ids[0] for row in rows]
        return found

    return work


def ours_features(windows: np.ndarray) -> Work:
    from transformer.runtime import prepare_process

    prepare_process()
    import jax

    from transformer.data.audio.features import LogMel

    features = jax.jit(LogMel(pad_seconds=float(WINDOW), scaling="whisper").__call__)
    lengths = np.full(1, windows.shape[1])
    return lambda: [np.asarray(features(row[None], lengths)[0]) for row in windows]


def their_features(windows: np.ndarray) -> Work:
    extract = extractor(80)
    return lambda: [extract(row[None]) for row in windows]


WORKERS = {
    "ours": ours,
    "transformers": theirs,
    "ctranslate2 float32": functools.partial(their_ctranslate2, kind="float32"),
    "ctranslate2 int8": functools.partial(their_ctranslate2, kind="int8"),
}
FEATURES = {
    "ours": ours_features,
    "transformers, PyTorch": their_features,
}


def text_of(tokens: list[list[int]], end: int, prompt: list[int]) -> list[list[int]]:
    """Tokens without the prompt and what follows their end."""
    rows = [row[len(prompt) :] if row[: len(prompt)] == prompt else row for row in tokens]
    return [row[: row.index(end)] if end in row else row for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--job", choices=("transcription", "features"), default="transcription")
    parser.add_argument("--model")
    parser.add_argument("--recordings")
    parser.add_argument("--batch_size", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=("wall", "processor"), default="wall")
    parser.add_argument("--worker")
    args = parser.parse_args()
    if args.worker:
        windows = windows_of(args.recordings)
        clock = time.process_time if args.clock == "processor" else time.perf_counter
        if args.job == "features":
            serve(FEATURES[args.worker](windows), units=1, clock=clock)
            return
        work = WORKERS[args.worker](args, windows)
        published, prompt = read_model(args.model)
        found = text_of(work(), published.generation["eos_token_id"], prompt)
        serve(work, units=1, clock=clock, is_warm=True, tokens=found)
        return
    workers = FEATURES if args.job == "features" else WORKERS
    command = [sys.executable, __file__, *sys.argv[1:]]
    commands = {name: [*command, f"--worker={name}"] for name in workers}
    results = alternate(commands, rounds=args.rounds, items_per_unit=SECONDS, item="s of sound")
    if args.job == "features":
        return
    expected = results["ours"]["tokens"]
    print(f"{len(expected)} windows, {sum(map(len, expected)):,} tokens")
    for name, result in results.items():
        same = sum(one == other for one, other in zip(result["tokens"], expected, strict=True))
        print(f"{name}: {same} windows with the same tokens")


if __name__ == "__main__":
    main()
