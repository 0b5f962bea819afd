"""How a worker measures and reports."""

import json
import statistics
import time
from collections.abc import Callable
from typing import Any


def report(line: str, part: str = "", **facts: Any) -> None:
    """Reports facts about a line of the table at once, since a worker may be killed any time.

    Args:
        line: the line of the table.
        part: `ours` or `peer`, if it is not the part that the worker was started for.
        **facts: see `table`.
    """
    print(json.dumps({"line": line, "part": part, **facts}), flush=True)


def measure(
    work: Callable[[int], None], *, seconds: float, units: int = 1, rounds: int = 5
) -> dict[str, float]:
    """Milliseconds of a unit: median, minimum and maximum of several rounds.

    Args:
        work: does its work the given number of times and waits for the result; already warm.
        seconds: approximate duration of all rounds.
        units: number of units of one repetition.
        rounds: number of rounds.
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
