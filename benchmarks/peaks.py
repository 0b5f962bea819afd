"""How fast the matrix libraries of XLA and PyTorch are here: what a ratio of two programs rests on.

python benchmarks/peaks.py
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

# Rows and columns of square matrices, in float32.
SIZE, PRODUCTS = 1024, 40
LIBRARIES = {"jax": "XLA", "torch": "PyTorch"}


def print_peaks() -> None:
    """Prints the speed of a large product in each library that is installed, and the processor."""
    found = []
    for package, name in LIBRARIES.items():
        command = [sys.executable, __file__, f"--package={package}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        speed = done.stdout.strip() or "not there"
        found.append(f"{name} {speed}")
    print(f"{processor()}; products of {SIZE:,} x {SIZE:,} in float32: {', '.join(found)}")


def processor() -> str:
    """The cores in use and the name of the processor."""
    cores, name = len(os.sched_getaffinity(0)), "a processor without a name"
    info = Path("/proc/cpuinfo")
    for line in info.read_text("utf-8").splitlines() if info.exists() else ():
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    return f"{cores} core{'s' * (cores > 1)} of {name}"


def best(multiply: Callable[[], object]) -> float:
    """The GFLOP/s of the best of many products, as other work disturbs most of them."""
    multiply()
    seconds = []
    for _ in range(PRODUCTS):
        begin = time.perf_counter()
        multiply()
        seconds.append(time.perf_counter() - begin)
    return 2 * SIZE**3 / min(seconds) / 1e9


def of_jax() -> float:
    """XLA's speed."""
    import jax
    import jax.numpy as jnp

    x = jnp.full((SIZE, SIZE), 0.5)
    product = jax.jit(jnp.matmul)
    return best(lambda: product(x, x).block_until_ready())


def of_torch() -> float:
    """PyTorch's speed, with as many threads as there are cores."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    x = torch.full((SIZE, SIZE), 0.5)
    return best(lambda: x @ x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--package", choices=LIBRARIES)
    arguments = parser.parse_args()
    if arguments.package is None:
        print_peaks()
    else:
        print(f"{(of_jax if arguments.package == 'jax' else of_torch)():,.0f} GFLOP/s")


if __name__ == "__main__":
    main()
