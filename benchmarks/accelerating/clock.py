"""How a worker measures, and how it says what it found."""

import json
import statistics
import time
from collections.abc import Callable
from typing import Any


def report(line: str, part: str = "", **facts: Any) -> None:
    """Says what is known of a line of the table, at once: a worker may be killed any time.

    Args:
        line: of the table.
        part: `ours` or `peer`, if it is not that which the worker was started for.
        **facts: see `table`.
    """
    print(json.dumps({"line": line, "part": part, **facts}), flush=True)


def measure(
    work: Callable[[int], None], *, seconds: float, units: int = 1, rounds: int = 5
) -> dict[str, float]:
    """Milliseconds of a unit: the median of some rounds, the least and the most.

    Args:
        work: does its work so many times and waits for the result; it has been called before.
        seconds: how long all rounds take, about.
        units: how many units one time is.
        rounds: how many.
    """
    started = time.perf_counter()
    work(1)
    times = max(1, round(seconds / rounds / max(time.perf_counter() - started, 1e-6)))
    found = []
    for _ in range(rounds):
        started = time.perf_counter()
        work(times)
        found.append((time.perf_counter() - started) * 1e3 / (times * units))
    return {"ms": statistics.median(found), "low": min(found), "high": max(found)}
