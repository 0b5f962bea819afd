"""Einsum against blockwise attention: temporary memory, difference, and crossover of times.

    python benchmarks/attention.py

Memory is the compiler's plan (`memory_analysis`), forward and backward, batch 1, 4 heads of 32,
causal. Times are medians of turns in one process. The crossover determines `BLOCKWISE_FROM` in
`transformer/ops/attention.py`.
"""

import statistics
import time

import jax
import jax.numpy as jnp
from peaks import print_peaks

from transformer.ops.attention import dot_product_attention
from transformer.ops.masks import causal
from transformer.runtime import prepare_process

NUM_HEADS, HEAD_DIM = 4, 32


def inputs(length: int) -> list[jax.Array]:
    keys = jax.random.split(jax.random.key(0), 3)
    return [jax.random.normal(key, (1, length, NUM_HEADS, HEAD_DIM)) for key in keys]


def gradient(implementation: str):
    def loss(query, key, value):
        output = dot_product_attention(
            query, key, value, mask=causal(), implementation=implementation
        )
        return jnp.sum(jnp.sin(output)), output

    return jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))


def forward(implementation: str):
    def attend(query, key, value):
        return dot_product_attention(
            query, key, value, mask=causal(), implementation=implementation
        )

    return jax.jit(attend)


def temporary_bytes(function, length: int) -> int:
    return function.lower(*inputs(length)).compile().memory_analysis().temp_size_in_bytes


def memory() -> None:
    print("temporary MiB             forward                backward          largest difference")
    print("     T          einsum    blockwise      einsum    blockwise     output    gradient")
    for length in (1024, 2048, 4096, 8192):
        row = [
            temporary_bytes(make(name), length) / 2**20
            for make in (forward, gradient)
            for name in ("einsum", "blockwise")
        ]
        ((_, reference), reference_gradients) = gradient("einsum")(*inputs(length))
        ((_, output), gradients) = gradient("blockwise")(*inputs(length))
        difference = float(jnp.max(jnp.abs(output - reference)))
        gradient_difference = max(
            float(jnp.max(jnp.abs(a - b)))
            for a, b in zip(gradients, reference_gradients, strict=True)
        )
        print(
            f"{length:6}    "
            + " ".join(f"{value:11.1f}" for value in row)
            + f"    {difference:9.1e} {gradient_difference:9.1e}"
        )


def crossover(rounds: int = 15) -> None:
    print("\nforward and backward, ms (median)")
    print("     T      einsum   blockwise   einsum / blockwise")
    for length in (128, 256, 384, 512, 768, 1024, 2048):
        functions = {name: gradient(name) for name in ("einsum", "blockwise")}
        arrays = inputs(length)
        seconds: dict[str, list[float]] = {name: [] for name in functions}
        for turn in range(rounds + 1):
            for name, function in functions.items():
                started = time.perf_counter()
                jax.block_until_ready(function(*arrays))
                if turn:  # The first turn compiles.
                    seconds[name].append(time.perf_counter() - started)
        einsum, blockwise = (statistics.median(values) * 1e3 for values in seconds.values())
        print(f"{length:6} {einsum:11.2f} {blockwise:11.2f} {einsum / blockwise:12.2f}")


if __name__ == "__main__":
    print_peaks()
    prepare_process()
    memory()
    crossover()
