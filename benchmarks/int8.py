"""Weights and caches in 8 bits against float32: loss, memory as the compiler plans it, and speed.

python benchmarks/int8.py --workdir=runs/gpt_char
python benchmarks/int8.py --workdir=runs/smollm2 --context=512 --rows=8 --batch_sizes 1 16
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from transformer.runtime import prepare_process


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--file", type=Path, help="held-out text; the held-out plays by default")
    parser.add_argument("--rows", type=int, default=64, help="how many rows of text are scored")
    parser.add_argument("--context", type=int, help="tokens of a row; the model's by default")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    prepare_process()
    from transformer.data.embedded.texts import plays
    from transformer.decoding.preparing import unrolled
    from transformer.decoding.sample import OneByOne, as_it_is
    from transformer.nn.caches import in_int8
    from transformer.nn.int8 import weights_in_int8
    from transformer.ops.logits import Sampling
    from transformer.runs.opening import open_run

    run = open_run(arguments.workdir)
    model, params = unrolled(run.model, run.params)
    small, context = weights_in_int8(model, params), arguments.context or model.context
    text = arguments.file.read_text("utf-8") if arguments.file else plays.read(0.1)[1]
    count = arguments.rows * context
    # No character of a text needs more than a few tokens.
    ids = run.task.load_tokenizer(arguments.workdir).encode_prompt(text[: 8 * count])
    rows = np.asarray(ids[:count]).reshape(-1, context)
    writers = {
        f"weights {weights}, cache {cache}": OneByOne(model, chosen, Sampling(0.0), kept)
        for weights, chosen in (("float32", params), ("int8", small))
        for cache, kept in (("float32", as_it_is), ("int8", in_int8))
    }
    print(f"{rows.size:,} tokens of held-out text in rows of {context}")
    plain = None
    for name, writer in writers.items():
        found = loss(writer, rows)
        plain = found if plain is None else plain
        print(f"{name:32} {found:.4f} nats a token ({found - plain:+.4f})", flush=True)
    for batch_size in arguments.batch_sizes:
        print(f"\nwriting at batch {batch_size}, a cache of {context} tokens")
        compare(writers, batch_size, context, arguments.rounds)


def loss(writer, rows: np.ndarray) -> float:
    """The mean loss in nats of each token but the first of a row, through the writer's cache."""
    import jax
    import jax.numpy as jnp
    import optax

    @jax.jit
    def of_row(params, row):
        def run(module):
            cache = writer.kept(module.empty_cache(1, len(row)))
            places = jnp.arange(len(row))[None]
            scores, _ = module(row[None], positions=places, cache=cache)
            found = optax.softmax_cross_entropy_with_integer_labels(scores[0, :-1], row[1:])
            return found.mean()

        return writer.model.for_writing().apply({"params": params}, method=run)

    return float(np.mean([of_row(writer.params, jnp.asarray(row)) for row in rows]))


def compare(writers: dict, batch_size: int, context: int, rounds: int) -> None:
    """Prints planned memory, and processor time for a token in turns, of each writer."""
    made = {name: prepared(writer, batch_size, context) for name, writer in writers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(rounds):
        for name, (work, _) in made.items():
            seconds[name].append(work())
    base = next(iter(seconds.values()))
    heads = f"{'speed':>22}{'weights':>10}{'cache':>8}{'temporary MiB':>15}"
    print(f"{'':32}{'ms of processor':>16}{heads}")
    for name, (_, sizes) in made.items():
        ratios = sorted(b / s for b, s in zip(base, seconds[name], strict=True))
        speed = f"{statistics.median(ratios):.2f}x ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        weights, cache, temporary = (size / 2**20 for size in sizes)
        each = 1e3 * statistics.median(seconds[name])
        print(f"{name:32}{each:16.2f}{speed:>22}{weights:10.1f}{cache:8.1f}{temporary:15.1f}")


def prepared(
    writer, batch_size: int, context: int
) -> tuple[Callable[[], float], tuple[int, int, int]]:
    """What makes tokens and returns seconds for one, and bytes of weights, cache and the rest."""
    import jax
    import jax.numpy as jnp

    from transformer.decoding import sample

    model, tokens = writer.model.for_writing(), min(32, context // 2)
    prompts = np.ones((batch_size, context // 2), np.int32)
    lengths = np.full(batch_size, context // 2, np.int32)
    keys = sample._row_keys(jnp.uint32(0), batch_size)
    state = writer.read(prompts, lengths, context)
    arguments = writer.params, state, keys, 0, tokens
    compiled = sample._continue.lower(model, writer.sampling, tokens, *arguments).compile()
    planned = compiled.memory_analysis().temp_size_in_bytes
    sizes = (size_of(writer.params), size_of(state.cache), planned)

    def work() -> float:
        nonlocal state
        # Starts at the same place each time; the cache is given away and comes back.
        state = state._replace(positions=jnp.asarray(lengths))
        begin = time.process_time()
        state, _ = compiled(writer.params, state, keys, 0, tokens)
        jax.block_until_ready(state)
        return (time.process_time() - begin) / tokens

    work()
    return work, sizes


def size_of(tree) -> int:
    """The bytes of all arrays of a tree."""
    import jax

    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


if __name__ == "__main__":
    main()
