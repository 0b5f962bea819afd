"""Compares programs side by side: separate processes that take turns in one run.

A worker prints one JSON line when it is warm, then does its work once for every line it reads and
prints the seconds of each unit of work. Machines are noisy, so the result is the median of ratios
between consecutive turns.
"""

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from floors import print_floors
from peaks import print_peaks

# What measures; processor time is that of all threads.
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def serve(
    work: Callable[[], Any],
    *,
    units: int,
    clock: Callable[[], float] = time.perf_counter,
    is_warm: bool = False,
    **facts: Any,
) -> None:
    """The worker's side: warms up, reports, then works on demand until its input ends.

    Args:
        work: does `units` units of work and waits for the result.
        units: number of units, for seconds per unit.
        clock: what measures, of `CLOCKS`.
        is_warm: whether the work was done before, so that there is nothing to warm up.
        **facts: reported with the peak memory.
    """
    if not is_warm:
        started = time.perf_counter()
        work()
        facts["first_call_seconds"] = time.perf_counter() - started
        work()
    print(json.dumps(facts), flush=True)
    for _ in sys.stdin:
        started = clock()
        work()
        print((clock() - started) / units, flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"peak_memory": peak}), flush=True)


def alternate(
    workers: Mapping[str, Sequence[str]], *, rounds: int, items_per_unit: int, item: str
) -> dict[str, dict[str, float]]:
    """Runs workers in turns and prints a table; the others are compared with the first.

    Above it stands how fast the matrix libraries are here, see `peaks`; below it, how long the work
    takes at least, for workers that say what they need, see `floors`.

    Args:
        workers: commands by name.
        rounds: number of turns of each.
        items_per_unit: number of items in a unit of work, for items per second.
        item: the name of an item.

    Returns:
        For each worker `seconds` (median), `low` and `high` (quartiles), `per_second`, `ratio`
        (median of its speed over the first one's in the same round), `peak_memory` in bytes,
        `floor` in seconds where it is known, and the facts of the worker.
    """
    speed = print_peaks()
    running = {}
    for name, command in workers.items():
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        line = process.stdout.readline()
        if not line:
            print(f"{name}: failed to start", file=sys.stderr)
            continue
        running[name] = (process, json.loads(line))
    seconds: dict[str, list[float]] = {name: [] for name in running}
    for _ in range(rounds):
        for name, (process, _) in running.items():
            process.stdin.write("go\n")
            process.stdin.flush()
            seconds[name].append(float(process.stdout.readline()))
    results = {}
    base = next(iter(seconds.values()))
    print(f"{'':24}{'ms':>9}{'quartiles':>18}{item + '/s':>12}{'speed':>8}{'peak MiB':>10}")
    for name, (process, facts) in running.items():
        process.stdin.close()
        memory = json.loads(process.stdout.readline())["peak_memory"]
        process.wait()
        low, median, high = statistics.quantiles(seconds[name], n=4)
        ratio = statistics.median(b / s for b, s in zip(base, seconds[name], strict=True))
        results[name] = {
            "seconds": median,
            "low": low,
            "high": high,
            "per_second": items_per_unit / median,
            "ratio": ratio,
            "peak_memory": memory,
            **facts,
        }
        print(
            f"{name:24}{median * 1e3:9.2f}{low * 1e3:9.2f}-{high * 1e3:<8.2f}"
            f"{items_per_unit / median:12,.0f}{ratio:7.2f}x{memory / 2**20:10,.0f}"
        )
    print_floors(results, speed)
    return results
