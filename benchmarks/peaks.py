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
SIZE, CALLS = 1024, 40
LIBRARIES = {"jax": "XLA", "torch": "PyTorch"}


def print_peaks() -> float:
    """Prints the speed of a large product in each library that is installed, and the processor.

    Returns:
        FLOP/s of the fastest library; 0 if none is there.
    """
    found = {name: measured(package) for package, name in LIBRARIES.items()}
    said = [
        f"{name} {speed / 1e9:,.0f} GFLOP/s" if speed else f"{name} not there"
        for name, speed in found.items()
    ]
    print(f"{processor()}; products of {SIZE:,} x {SIZE:,} in float32: {', '.join(said)}")
    return max(found.values())


def reading_speed(size: int) -> float:
    """Bytes a second of the fastest library: a matrix of so many bytes meets a vector.

    What fits into a cache of the processor is read faster than what does not.
    """
    return max(measured(package, f"--bytes={size}") for package in LIBRARIES)


def measured(package: str, *flags: str) -> float:
    """What a process of its own measures with a library; 0 if it is not installed."""
    command = [sys.executable, __file__, f"--package={package}", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return float(done.stdout or 0)


def processor() -> str:
    """The cores in use and the name of the processor."""
    cores, name = len(os.sched_getaffinity(0)), "a processor without a name"
    info = Path("/proc/cpuinfo")
    for line in info.read_text("utf-8").splitlines() if info.exists() else ():
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    return f"{cores} core{'s' * (cores > 1)} of {name}"


def fastest(work: Callable[[], object]) -> float:
    """The seconds of the fastest of many calls, as other work disturbs most of them."""
    work()
    seconds = []
    for _ in range(CALLS):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def in_jax(rows: int, columns: int) -> float:
    """The seconds of a product of [rows, 1024] and [1024, columns] by XLA."""
    import jax
    import jax.numpy as jnp

    x, y = jnp.full((rows, SIZE), 0.5), jnp.full((SIZE, columns), 0.5)
    product = jax.jit(jnp.matmul)
    return fastest(lambda: product(x, y).block_until_ready())


def in_torch(rows: int, columns: int) -> float:
    """The same by PyTorch, with as many threads as there are cores."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    x, y = torch.full((rows, SIZE), 0.5), torch.full((SIZE, columns), 0.5)
    return fastest(lambda: x @ y)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--package", choices=LIBRARIES)
    parser.add_argument("--bytes", type=int, help="bytes a second for a matrix of this size")
    arguments = parser.parse_args()
    seconds = {"jax": in_jax, "torch": in_torch}.get(arguments.package)
    if seconds is None:
        print_peaks()
    elif arguments.bytes is None:
        print(2 * SIZE**3 / seconds(SIZE, SIZE))
    else:
        rows = max(1, arguments.bytes // (4 * SIZE))
        print(4 * SIZE * rows / seconds(rows, 1))


if __name__ == "__main__":
    main()
