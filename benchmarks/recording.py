"""What recording every activation costs, and editing them: time and memory of one pass.

    python benchmarks/recording.py

A GPT of 6 layers, 6 heads, width 384 and 64 tokens. `plain` is the program without taps turned on,
which is the same as if there were none (`tests/nn/test_taps.py`). Times are medians of turns in one
process; memory is the compiler's plan, outputs and temporaries.
"""

import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from transformer.models.gpt import GPT
from transformer.nn.layouts import layer_name
from transformer.nn.taps import EDITS, RECORDED
from transformer.runtime import prepare_process

LAYERS, HEADS, WIDTH, TOKENS, TURNS = 6, 6, 384, 64, 30


def main() -> None:
    prepare_process()
    model = GPT(vocab_size=5000, num_layers=LAYERS, num_heads=HEADS, width=WIDTH, context=TOKENS)
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 5000, (1, TOKENS)))
    params = model.init(jax.random.key(0), tokens)["params"]
    scale = np.ones((HEADS, 1), np.float32)
    layers = {
        layer_name(layer): {"attention": {"mixed": {"scale": scale}}} for layer in range(LAYERS)
    }
    ways = {
        "plain": ({"params": params}, False),
        "recorded": ({"params": params}, [RECORDED]),
        "edited": ({"params": params, EDITS: {"blocks": layers}}, False),
        "edited and recorded": ({"params": params, EDITS: {"blocks": layers}}, [RECORDED]),
    }
    calls, sizes = {}, {}
    for name, (variables, mutable) in ways.items():
        apply = jax.jit(
            lambda variables, tokens, m=mutable: model.apply(variables, tokens, mutable=m)
        )
        calls[name] = (apply, variables)
        plan = apply.lower(variables, tokens).compile().memory_analysis()
        sizes[name] = (plan.output_size_in_bytes, plan.temp_size_in_bytes)
        jax.block_until_ready(apply(variables, tokens))
    times = {name: [] for name in ways}
    for _ in range(TURNS):
        for name, (apply, variables) in calls.items():
            begin = time.perf_counter()
            jax.block_until_ready(apply(variables, tokens))
            times[name].append(time.perf_counter() - begin)
    usual = statistics.median(times["plain"])
    for name, (output, temporary) in sizes.items():
        middle = statistics.median(times[name])
        print(
            f"{name:20} {1e3 * middle:7.2f} ms, {middle / usual:.2f} of plain; outputs "
            f"{output / 2**20:6.2f} MiB, temporary {temporary / 2**20:6.2f} MiB"
        )


if __name__ == "__main__":
    main()
