"""The encoder-decoder against `MarianMTModel` of `transformers`, in turns: training, beam search.

    pip install -e '.[data]' torch==2.13.0 transformers
    python benchmarks/translation.py --job=training --size=tiny --compile
    python benchmarks/translation.py --job=beam --size=tiny --batch_size=1
    python benchmarks/translation.py --job=beam --size=base --batch_size=32

Both have the same layers, sizes and number of parameters (checked), random weights, dropout in the
same places, and the same batches of random tokens. `tiny` has the sizes of the `multi30k` config,
`base` those of Vaswani et al. 2017, and both normalise after each branch. `--compile` also runs
`torch.compile` in training. Only target tokens count, without padding.

What differs:

- Marian's positions hold all sines, then all cosines, in a table; ours alternate and are computed.
- Marian adds a bias, not trained, to the logits.
- Our step also measures the loss without smoothing, the accuracy and the norms of all groups, and
  runs many times in one compiled call. Theirs is a loop in Python with PyTorch's fused AdamW.
- In beam search Marian's batch is padded to its longest sentence, ours to a bucket's length as in
  `decoding.translate`, so that few shapes are compiled.
- Marian divides log probabilities by a power of the length and ours by one of `(5 + length) / 6`,
  and a forced end costs Marian nothing. Neither matters where all outputs are equally long.
"""

import argparse
import dataclasses
import functools
import math
import sys

import numpy as np
from alternate import alternate, serve
from floors import Needs, hidden_flops, training_needs

PADDING, END, FIRST_WORD = 0, 1, 2
LABEL_SMOOTHING = 0.1
# AdamW without decay, which is Adam; the constants are those of Vaswani et al. 2017.
LEARNING_RATE, BETAS, EPSILON, CLIP_NORM = 1e-3, (0.9, 0.98), 1e-9, 1.0
BEAM_SIZE, LENGTH_PENALTY = 5, 0.6
NUM_SENTENCES, SHORTEST, LONGEST = 64, 5, 20
# Including the end token.
OUTPUT_LENGTH = 24
# Added to the logit of the end token, so that outputs end only where they are forced to. With
# random weights they would end at random places, different in each framework.
NEVER = -1e9


@dataclasses.dataclass(frozen=True)
class Size:
    """Shapes of a model and of its training batches; `units` steps make a turn."""

    num_layers: int
    num_heads: int
    width: int
    feed_forward_width: int
    vocab_size: int
    dropout_rate: float
    rows: int
    length: int
    units: int


SIZES = {
    "tiny": Size(4, 4, 128, 256, 10_000, 0.3, rows=256, length=16, units=4),
    "base": Size(6, 8, 512, 2048, 37_000, 0.1, rows=32, length=32, units=2),
}


def make_batches(size: Size) -> dict[str, np.ndarray]:
    """Batches `[units, rows, length]` as `lay_out` makes them, with sentences filling 60-100%."""
    random = np.random.default_rng(0)
    shape = (2, size.units, size.rows, 1)
    lengths = random.integers(math.ceil(0.6 * size.length), size.length, shape, endpoint=True)
    place = np.arange(size.length)
    real = place < lengths
    tokens = random.integers(FIRST_WORD, size.vocab_size, real.shape)
    tokens[place == lengths - 1] = END
    # The labels shifted right by one; the end token also begins a text.
    target = np.roll(tokens[1], 1, axis=-1)
    target[..., 0] = END
    return {
        "source": np.where(real[0], tokens[0], PADDING),
        "source_segments": real[0].astype(np.int32),
        "target": np.where(real[1], target, PADDING),
        "target_segments": real[1].astype(np.int32),
        "labels": np.where(real[1], tokens[1], -100),
    }


def make_sources(size: Size, batch_size: int) -> list[list[np.ndarray]]:
    """Batches of random sentences, the shortest first; each ends with the end token."""
    random = np.random.default_rng(0)
    lengths = np.sort(random.integers(SHORTEST, LONGEST, NUM_SENTENCES, endpoint=True))
    sentences = [
        np.append(random.integers(FIRST_WORD, size.vocab_size, length - 1), END)
        for length in lengths
    ]
    return [sentences[i : i + batch_size] for i in range(0, NUM_SENTENCES, batch_size)]


def pad(sentences: list[np.ndarray], num_columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Sentences as rows of one array, and their lengths."""
    lengths = np.array([len(ids) for ids in sentences])
    rows = np.full((len(sentences), num_columns), PADDING)
    for row, ids in zip(rows, sentences, strict=True):
        row[: len(ids)] = ids
    return rows, lengths


def check_outputs(outputs: np.ndarray) -> None:
    """Refuses outputs that do not have `OUTPUT_LENGTH` tokens and end with the end token."""
    assert outputs.shape[1] == OUTPUT_LENGTH, outputs.shape
    assert np.all(outputs[:, -1] == END)
    assert not np.any(outputs[:, :-1] == END)


def ours(size: Size, kind: type | None = None):
    """Our model of a size."""
    from transformer.models.vaswani import Vaswani

    return (kind or Vaswani)(
        vocab_size=size.vocab_size,
        num_encoder_layers=size.num_layers,
        num_decoder_layers=size.num_layers,
        num_heads=size.num_heads,
        width=size.width,
        feed_forward_width=size.feed_forward_width,
        dropout_rate=size.dropout_rate,
    )


def theirs(size: Size):
    """The same model from Hugging Face `transformers`, on all cores."""
    import os

    import torch
    from transformers import MarianConfig, MarianMTModel

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    return MarianMTModel(
        MarianConfig(
            vocab_size=size.vocab_size,
            encoder_layers=size.num_layers,
            decoder_layers=size.num_layers,
            encoder_attention_heads=size.num_heads,
            decoder_attention_heads=size.num_heads,
            d_model=size.width,
            encoder_ffn_dim=size.feed_forward_width,
            decoder_ffn_dim=size.feed_forward_width,
            activation_function="relu",
            dropout=size.dropout_rate,
            attention_dropout=0.0,
            activation_dropout=0.0,
            max_position_embeddings=512,
            scale_embedding=True,
            pad_token_id=PADDING,
            eos_token_id=END,
            decoder_start_token_id=END,
            forced_eos_token_id=END,
        )
    )


def count_theirs(model) -> int:
    """Trained parameters; tables of positions are frozen and the bias of logits is a buffer."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def train_ours(size: Size) -> None:
    from transformer.runtime import prepare_process

    prepare_process()
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    from transformer.composition import with_fields
    from transformer.tasks.translation import Translation
    from transformer.training import state as states
    from transformer.training.optimizers import Optimizer, make_optimizer, make_schedule
    from transformer.training.step import Recipe, train_steps

    model = ours(size)
    fields = {"max_length": size.length, "label_smoothing": LABEL_SMOOTHING}
    task = with_fields(Translation(), **fields)
    boxed = model.init(jax.random.key(0), *task.example_inputs(model))["params"]
    options = Optimizer(
        learning_rate=LEARNING_RATE,
        schedule="constant",
        warmup="0 steps",
        beta1=BETAS[0],
        beta2=BETAS[1],
        epsilon=EPSILON,
        weight_decay=0.0,
        clip_norm=CLIP_NORM,
    )
    schedule = make_schedule(options, warmup_steps=0, total_steps=1)
    optimizer = make_optimizer(options, schedule, boxed)
    params = nn.meta.unbox(boxed)
    num_params = sum(x.size for x in jax.tree.leaves(params))
    state = states.create(params, optimizer, jax.random.key(0), average=False)
    recipe = Recipe(
        lambda params, batch, rngs: task.losses(model, params, batch, rngs), optimizer, schedule
    )
    steps = jax.jit(functools.partial(train_steps, recipe), donate_argnums=0)
    batches = {name: jnp.asarray(x, jnp.int32) for name, x in make_batches(size).items()}

    def work() -> None:
        nonlocal state
        state, _ = steps(state, batches, size.units)
        jax.block_until_ready(state)

    one = {name: jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for name, x in batches.items()}
    hidden = hidden_flops(size.rows, size.length, size.width, size.num_layers)
    needed = dataclasses.asdict(training_needs(task, model, state.params, one, hidden))
    serve(work, units=size.units, parameters=num_params, needs=needed)


def train_theirs(size: Size, compiled: bool) -> None:
    import torch

    model = theirs(size).train()
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=LEARNING_RATE,
        betas=BETAS,
        eps=EPSILON,
        weight_decay=0.0,
        fused=True,
    )
    batches = {name: torch.tensor(x, dtype=torch.long) for name, x in make_batches(size).items()}

    def find_loss(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        logits = model(
            input_ids=batch["source"],
            attention_mask=batch["source_segments"],
            decoder_input_ids=batch["target"],
            decoder_attention_mask=batch["target_segments"],
            use_cache=False,
        ).logits
        return torch.nn.functional.cross_entropy(
            logits.view(-1, size.vocab_size),
            batch["labels"].view(-1),
            ignore_index=-100,
            label_smoothing=LABEL_SMOOTHING,
        )

    if compiled:
        find_loss = torch.compile(find_loss)

    def work() -> None:
        for index in range(size.units):
            optimizer.zero_grad(set_to_none=True)
            find_loss({name: x[index] for name, x in batches.items()}).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
            optimizer.step()

    serve(work, units=size.units, parameters=count_theirs(model))


def search_ours(size: Size, batch_size: int) -> None:
    from transformer.runtime import prepare_process

    prepare_process()
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    from transformer.data.order import make_buckets
    from transformer.decoding.beam import Settings, beam_search
    from transformer.models.vaswani import Vaswani

    class Endless(Vaswani):
        """Adds the same bias to the logits as Marian."""

        def logits(self, features: jax.Array) -> jax.Array:
            bias = jnp.where(jnp.arange(self.vocab_size) == END, NEVER, 0.0)
            return super().logits(features) + bias

    model = ours(size, Endless)
    tokens = jnp.zeros((1, LONGEST), jnp.int32)
    params = nn.meta.unbox(model.init(jax.random.key(0), tokens, tokens)["params"])
    num_params = sum(x.size for x in jax.tree.leaves(params))

    sources = make_sources(size, batch_size)
    longest = np.array([max(map(len, batch)) for batch in sources])
    buckets = make_buckets(longest, batch_tokens=LONGEST, longest=LONGEST, rows_multiple=1)
    edges = [bucket.length for bucket in buckets]
    batches = [
        pad(batch, edges[np.searchsorted(edges, length)])
        for batch, length in zip(sources, longest, strict=True)
    ]

    settings = Settings(
        end=END,
        num_tokens=size.vocab_size,
        max_length=OUTPUT_LENGTH,
        beam_size=BEAM_SIZE,
        alpha=LENGTH_PENALTY,
        num_return=1,
    )

    def work() -> None:
        for rows, lengths in batches:
            found = beam_search(
                model,
                params,
                rows.astype(np.int32),
                lengths.astype(np.int32),
                np.full(len(rows), OUTPUT_LENGTH, np.int32),
                settings,
            )
            found = jax.device_get(found)
            assert np.all(found.lengths == OUTPUT_LENGTH)
            check_outputs(found.tokens[:, 0])

    needed = dataclasses.asdict(searching_needs(ours(size), params, batch_size))
    serve(work, units=NUM_SENTENCES, parameters=num_params, needs=needed)


def searching_needs(model, params, batch_size: int) -> Needs:
    """What a sentence needs: its source, and all tokens of all beams; caches are not counted."""
    import jax
    import jax.numpy as jnp

    from transformer.training.flops import count_flops

    def flops(length: int) -> int:
        tokens = [jnp.zeros((1, columns), jnp.int32) for columns in (LONGEST, length)]
        return count_flops(lambda params: model.apply({"params": params}, *tokens), params)

    token = (flops(OUTPUT_LENGTH) - flops(1)) / (OUTPUT_LENGTH - 1)
    source = flops(1) - token
    # In each step the decoder and the table, which is the output layer, are read once for a batch.
    weights = sum(x.size for x in jax.tree.leaves(params))
    read = weights - sum(x.size for x in jax.tree.leaves(params["encoder"]))
    needed = source + BEAM_SIZE * OUTPUT_LENGTH * token
    return Needs(needed, 4 * read, OUTPUT_LENGTH / batch_size)


def search_theirs(size: Size, batch_size: int) -> None:
    import torch

    model = theirs(size).eval()
    # Cheaper than `min_new_tokens`, which copies all scores in each step.
    model.final_logits_bias[0, END] = NEVER
    batches = []
    for batch in make_sources(size, batch_size):
        rows, lengths = pad(batch, max(map(len, batch)))
        mask = np.arange(rows.shape[1]) < lengths[:, None]
        batches.append((torch.tensor(rows), torch.tensor(mask, dtype=torch.long)))

    def work() -> None:
        for rows, mask in batches:
            with torch.inference_mode():
                outputs = model.generate(
                    rows,
                    attention_mask=mask,
                    max_new_tokens=OUTPUT_LENGTH,
                    num_beams=BEAM_SIZE,
                    length_penalty=LENGTH_PENALTY,
                    early_stopping=False,
                    do_sample=False,
                    use_cache=True,
                    forced_eos_token_id=END,
                )
            # Skip the first token, which begins a text.
            check_outputs(outputs[:, 1:].numpy())

    serve(work, units=NUM_SENTENCES, parameters=count_theirs(model))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--job", choices=("training", "beam"), default="training")
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--batch_size", type=int, default=1, help="sentences searched at once")
    parser.add_argument("--compile", action="store_true", help="torch.compile in training too")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--worker")
    arguments = parser.parse_args()
    size = SIZES[arguments.size]
    match arguments.job, arguments.worker:
        case _, None:
            compare(arguments)
        case "training", "ours":
            train_ours(size)
        case "training", name:
            train_theirs(size, compiled="compile" in name)
        case _, "ours":
            search_ours(size, arguments.batch_size)
        case _:
            search_theirs(size, arguments.batch_size)


def compare(arguments: argparse.Namespace) -> None:
    """Runs the workers of a job."""
    if arguments.job == "training":
        size = SIZES[arguments.size]
        names = ["torch eager", *["torch compile"] * arguments.compile, "ours"]
        tokens = make_batches(size)["target_segments"].sum()
        items, item = round(tokens / size.units), "tokens"
    else:
        names, items, item = ["transformers", "ours"], 1, "sentences"
    flags = [f"--{name}={getattr(arguments, name)}" for name in ("job", "size", "batch_size")]
    workers = {name: [sys.executable, __file__, *flags, f"--worker={name}"] for name in names}
    results = alternate(workers, rounds=arguments.rounds, items_per_unit=items, item=item)
    for name, result in results.items():
        print(
            f"{name}: {result['per_second']:.5g} {item}/s, {result['parameters']:,} parameters, "
            f"first call {result['first_call_seconds']:.1f} s"
        )
    assert len({result["parameters"] for result in results.values()}) == 1, "different models"


if __name__ == "__main__":
    main()
