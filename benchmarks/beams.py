"""Beam search of a translator with OPUS-MT's sizes: `transformers` and `ctranslate2` in turns.

    pip install -e '.[interop]' torch==2.13.0 transformers ctranslate2
    python benchmarks/beams.py
    taskset -c 0 python benchmarks/beams.py --clock=processor --rounds=5

All three have the same random weights, 6+6 layers of width 512 and 58,101 tokens, in float32;
`ctranslate2` also runs them in 8 bits. The end token is made impossible, so that every output has
the same number of tokens, and that these are the same is checked. Sentences are random; 32 of them
are translated at once. Texts are token ids: a tokenizer has no part in it.

What differs: ours pads sources to one length, so that there is one compiled program; the others
pad each batch to its longest sentence.
"""

import argparse
import functools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from alternate import alternate, serve

END, PAD = 0, 58_100
NUM_SENTENCES, SHORTEST, LONGEST = 32, 8, 32
# Added to logits of tokens that are not to be written.
NEVER = -1e9
Work = Callable[[], list[list[int]]]


def batches(size: int) -> Iterator[list[np.ndarray]]:
    """Random sentences with an end token, the shortest first."""
    random = np.random.default_rng(0)
    lengths = np.sort(random.integers(SHORTEST, LONGEST, NUM_SENTENCES, endpoint=True))
    sentences = [np.append(random.integers(2, PAD, length - 1), END) for length in lengths]
    return (sentences[first : first + size] for first in range(0, NUM_SENTENCES, size))


def padded(sentences: list[np.ndarray], width: int, filler: int) -> np.ndarray:
    """Sentences as rows of one array."""
    rows = np.full((len(sentences), width), filler, np.int32)
    for row, sentence in zip(rows, sentences, strict=True):
        row[: len(sentence)] = sentence
    return rows


def write_models(folder: Path) -> None:
    """The random model in the layouts of `transformers` and of `ctranslate2`."""
    import torch
    from ctranslate2.converters.transformers import MarianMTLoader
    from transformers import MarianConfig, MarianMTModel

    torch.manual_seed(0)
    config = MarianConfig(
        vocab_size=PAD + 1,
        d_model=512,
        encoder_layers=6,
        decoder_layers=6,
        encoder_attention_heads=8,
        decoder_attention_heads=8,
        encoder_ffn_dim=2048,
        decoder_ffn_dim=2048,
        activation_function="swish",
        scale_embedding=True,
        max_position_embeddings=512,
        pad_token_id=PAD,
        decoder_start_token_id=PAD,
        eos_token_id=END,
        forced_eos_token_id=None,
        init_std=0.05,
    )
    model = MarianMTModel(config)
    with torch.no_grad():
        model.model.shared.weight[PAD] = 0.0
        model.final_logits_bias[0, [END, PAD]] = NEVER
    model.save_pretrained(folder / "published")
    spec = MarianMTLoader().get_model_spec(model)
    names = ["</s>", "<unk>", *map(str, range(2, PAD))]
    spec.register_source_vocabulary(names)
    spec.register_target_vocabulary(names)
    spec.config.eos_token = spec.config.decoder_start_token = "</s>"
    spec.config.unk_token = "<unk>"
    spec.validate()
    spec.optimize()
    (folder / "converted").mkdir()
    spec.save(str(folder / "converted"))


def ours(args: argparse.Namespace) -> Work:
    from transformer.runtime import prepare_process

    prepare_process()
    import jax

    from transformer.decoding.beam import Settings, beam_search
    from transformer.interop.opening import read_published
    from transformer.ops.search_rules import Search
    from transformer.training.selection import from_paths

    published = read_published(args.folder / "published")
    model, params = published.family.model(**published.model), from_paths(published.params)
    params = jax.tree.map(jax.numpy.asarray, params)
    settings = Settings(
        end=END,
        num_tokens=PAD + 1,
        max_length=args.length,
        beam_size=args.beams,
        alpha=1.0,
        num_return=1,
        begin=model.begin_token(),
        search=Search(kind="transformers", early_stopping="false"),
    )
    limits = np.full(args.batch_size, args.length, np.int32)

    def work() -> list[list[int]]:
        found = []
        for sentences in batches(args.batch_size):
            lengths = np.array([len(sentence) for sentence in sentences], np.int32)
            rows = padded(sentences, LONGEST, END)
            outputs = beam_search(model, params, rows, lengths, limits, settings)
            found += np.asarray(outputs.tokens)[:, 0].tolist()
        return found

    return work


def theirs(args: argparse.Namespace) -> Work:
    import torch
    from transformers import MarianMTModel

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = MarianMTModel.from_pretrained(args.folder / "published").eval()
    settings = {"num_beams": args.beams, "length_penalty": 1.0, "early_stopping": False}

    def work() -> list[list[int]]:
        found = []
        for sentences in batches(args.batch_size):
            rows = padded(sentences, max(map(len, sentences)), PAD)
            seen = torch.tensor(rows != PAD).long()
            with torch.inference_mode():
                outputs = model.generate(
                    torch.tensor(rows).long(),
                    attention_mask=seen,
                    max_new_tokens=args.length,
                    do_sample=False,
                    **settings,
                )
            # The first token begins a text.
            found += outputs[:, 1:].tolist()
        return found

    return work


def their_ctranslate2(args: argparse.Namespace, kind: str) -> Work:
    import ctranslate2

    cores = len(os.sched_getaffinity(0))
    folder = str(args.folder / "converted")
    model = ctranslate2.Translator(folder, compute_type=kind, intra_threads=cores)

    def name(token: int) -> str:
        return "</s>" if token == END else str(token)

    def work() -> list[list[int]]:
        found = []
        for sentences in batches(args.batch_size):
            rows = model.translate_batch(
                [[name(token) for token in sentence] for sentence in sentences],
                beam_size=args.beams,
                max_decoding_length=args.length,
                max_batch_size=args.batch_size,
            )
            found += [[1 if t == "<unk>" else int(t) for t in row.hypotheses[0]] for row in rows]
        return found

    return work


WORKERS = {
    "ours": ours,
    "transformers": theirs,
    "ctranslate2 float32": functools.partial(their_ctranslate2, kind="float32"),
    "ctranslate2 int8": functools.partial(their_ctranslate2, kind="int8"),
}


def compare(args: argparse.Namespace) -> None:
    """Runs all workers in turns, and counts outputs that are the same."""
    with tempfile.TemporaryDirectory() as folder:
        write_models(Path(folder))
        command = [sys.executable, __file__, *sys.argv[1:], f"--folder={folder}"]
        commands = {name: [*command, f"--worker={name}"] for name in WORKERS}
        results = alternate(
            commands,
            rounds=args.rounds,
            items_per_unit=NUM_SENTENCES * args.length,
            item="tokens",
        )
    expected = results["ours"]["tokens"]
    tokens = {token for output in expected for token in output}
    print(f"{len(expected)} outputs of {args.length} tokens, {len(tokens):,} different tokens")
    for name, result in results.items():
        same = sum(one == other for one, other in zip(result["tokens"], expected, strict=True))
        print(f"{name}: {same} outputs are the same")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--beams", type=int, default=5)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--length", type=int, default=24, help="tokens of each output")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=("wall", "processor"), default="wall")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--worker")
    args = parser.parse_args()
    if args.worker is None:
        compare(args)
        return
    clock = time.process_time if args.clock == "processor" else time.perf_counter
    work = WORKERS[args.worker](args)
    serve(work, units=1, clock=clock, is_warm=True, tokens=work())


if __name__ == "__main__":
    main()
