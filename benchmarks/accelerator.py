"""Measures training, generation and attention on an accelerator, each next to its peer.

    python benchmarks/accelerator.py --json=accelerator.json
    python benchmarks/accelerator.py --rows=gpt2,vit --parts=ours --seconds=200
    python benchmarks/accelerator.py --tiny

It needs one GPU, no network, and only the project, PyTorch, `transformers` and timm; a peer that is
not installed is reported and left out. Each part of a row is a separate process with a time limit:
`ours` begins with an empty compilation cache, `peer` is the same model in PyTorch, and `warm` is
ours up to its first step with a filled cache. Rows come in order of importance
(`accelerating/rows.py`), `warm` parts last; parts for which `--seconds` leaves no time are listed.
The table on stdout and the JSON file grow with each result, so an interrupted run keeps its
results.

Columns: seconds from the start of the process to the first step, without and with compiled
programs; milliseconds per step, the median of five rounds, minimum and maximum; items (input
tokens, images, trials) per second; MFU with all pairs of attention, and without those that a causal
mask hides; the fraction of memory bandwidth needed to read each parameter and the cache once per
token; peak memory of the device; our speed over the peer's.

`--tiny` runs the rows, of those that differ in options only one, on one core of a CPU with sizes
that say nothing about speed.
"""

import argparse
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from accelerating.parts import run_part
from accelerating.rows import ROOT, ROWS, Row, usual_rows
from accelerating.table import HEADER, Results

PARTS = ("ours", "peer", "warm")
# Time limits of a part in seconds, on an accelerator and in a tiny run.
LIMITS = {"ours": (150, 120), "peer": (90, 120), "warm": (60, 120), "device": (90, 120)}
# Minimum of remaining seconds to start a part.
LEAST = 5.0
# Compiles faster, to slower programs; for tiny runs, which measure nothing.
_QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parsed(arguments)
    if options.worker:
        _work(options)
        return 0
    wanted = options.rows or usual_rows(options.tiny)
    rows = [row for row in ROWS if row.name in wanted]
    with tempfile.TemporaryDirectory(prefix="accelerator") as folder:
        return compare(rows, options, Path(folder), _command)


def compare(
    rows: Sequence[Row],
    options: argparse.Namespace,
    folder: Path,
    command: Callable[..., list[str]],
) -> int:
    """Runs rows part by part, and prints and writes each result at once.

    Args:
        rows: the rows, in the order of running.
        options: `tiny`, `parts`, `seconds` and `json`.
        folder: an empty folder for all output.
        command: returns the command of a worker; see `_command`.

    Returns:
        0, 1 if something failed, 2 if there is no usable device, 128 + signal if it was stopped.
    """
    began = time.monotonic()
    results = Results(options.json, tiny=options.tiny, arguments=sys.argv[1:])
    stopped = 0

    def limit(part: str, row: Row | None = None) -> float:
        left = options.seconds - (time.monotonic() - began)
        patience = row.patience if row is not None and part == "ours" else 1.0
        return min(LIMITS[part][options.tiny] * patience, left)

    def run(part: str, row: Row, sizes: dict[str, Any]) -> None:
        seconds = limit(part, row)
        if seconds < LEAST:
            title = _line_of(results, row, part)
            results.add(title, row.name, part, {"failed": "no time left for it"})
            return
        before = _cpu_seconds()
        failure = run_part(
            command(part, row.name, options.tiny, folder, sizes),
            seconds=seconds,
            environment=_environment(part, row, options.tiny, folder),
            heard=lambda said: _take(results, row, part, said),
        )
        facts = {"cpu_seconds": _cpu_seconds() - before}
        if failure is not None:
            facts |= {"failed": failure.reason, "log": failure.log}
        results.add(_line_of(results, row, part), row.name, part, facts)

    try:
        signal.signal(signal.SIGTERM, _stop)
        sizes = _look(options, folder, command, results, limit("device"))
        if sizes is None:
            return 2
        print(f"{results.device['kind']}: {', '.join(row.name for row in rows)}")
        if options.tiny:
            print("Tiny sizes, whatever the titles say: no figure is of any speed.")
        print(HEADER, flush=True)
        for row in rows:
            if "ours" in options.parts:
                run("ours", row, sizes[row.name])
            if "peer" in options.parts and (row.peer or row.beside):
                _run_peer(results, row, sizes[row.name], run)
            for title in results.of_row(row.name):
                print(results.shown(title), flush=True)
        # In a tiny run, one of them is enough to show that it works.
        again = [row for row in rows if row.job not in ("loop", "sweep") and not row.beside]
        for row in again[:1] if options.tiny else again:
            if "warm" in options.parts:
                run("warm", row, sizes[row.name])
    except KeyboardInterrupt as error:
        stopped = error.args[0] if error.args else signal.SIGINT
    results.seconds = time.monotonic() - began
    results.write()
    print(f"\n{results.table()}\n{results.seconds:.0f} s", flush=True)
    if stopped:
        return 128 + stopped
    return int(any("failed" in line.get(p, {}) for line in results.lines.values() for p in PARTS))


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [row.name for row in ROWS]

    def some_of(known: Sequence[str]) -> Callable[[str], list[str]]:
        def chosen(text: str) -> list[str]:
            wrong = set(text.split(",")) - set(known)
            if wrong:
                raise argparse.ArgumentTypeError(
                    f"no {', '.join(sorted(wrong))}: choose from {', '.join(known)}"
                )
            return text.split(",")

        return chosen

    parser.add_argument("--rows", type=some_of(names), help=", ".join(names))
    parser.add_argument("--parts", type=some_of(PARTS), default=list(PARTS), help=", ".join(PARTS))
    parser.add_argument("--seconds", type=float, default=470.0, help="of all together")
    parser.add_argument("--tiny", action="store_true", help="every row on a CPU")
    parser.add_argument("--json", type=Path, help="the file with all that is known")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--sizes", type=json.loads, default={}, help=argparse.SUPPRESS)
    parser.add_argument("--started", type=float, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _command(part: str, row: str, tiny: bool, folder: Path, sizes: dict[str, Any]) -> list[str]:
    """The command that starts this file as a worker."""
    command = [sys.executable, __file__, f"--worker={part}", f"--row={row}", f"--folder={folder}"]
    command += [f"--sizes={json.dumps(sizes)}", f"--started={time.time()}"]
    return command + ["--tiny"] * tiny


def _environment(part: str, row: Row | None, tiny: bool, folder: Path) -> dict[str, str]:
    """The environment of a worker: no downloads, and only compiled programs of this run."""
    cache = folder / "caches" / (row.cache or row.name if row else "device")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(
            [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH", "")])]
        ),
        "PYTHONUNBUFFERED": "1",
        "XDG_CACHE_HOME": str(cache),
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
        "TRITON_CACHE_DIR": str(cache / "triton"),
        "HF_HUB_OFFLINE": "1",
    }
    # Only one process uses the device at a time, so it may take most of the memory.
    environment.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.92")
    if tiny:
        environment |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "", "XLA_FLAGS": _QUICK}
    return environment


def _look(
    options: argparse.Namespace,
    folder: Path,
    command: Callable[..., list[str]],
    results: Results,
    seconds: float,
) -> dict[str, dict[str, Any]] | None:
    """The sizes of all rows, from a worker that also reports the device; None if it fails."""
    said: dict[str, Any] = {}
    failure = run_part(
        command("device", "", options.tiny, folder, {}),
        seconds=seconds,
        environment=_environment("device", None, options.tiny, folder),
        heard=said.update,
    )
    if failure is not None:
        print(f"No row can run: {failure.reason}\n{failure.log}", file=sys.stderr)
        return None
    results.device = said["device"]
    if said["device"]["platform"] == "cpu" and not options.tiny:
        print("JAX finds no accelerator here: --tiny is for CPUs.", file=sys.stderr)
        return None
    return said["sizes"]


def _take(results: Results, row: Row, part: str, said: dict[str, Any]) -> None:
    """Adds a report of a worker to its line."""
    facts = {key: value for key, value in said.items() if key not in ("line", "part")}
    results.add(said["line"], row.name, said.get("part") or part, facts)


def _line_of(results: Results, row: Row, part: str) -> str:
    """The line of a part when it ended: the last one it reported, or the row's first."""
    known = results.of_row(row.name)
    spoken = [title for title, line in known.items() if part in line]
    return spoken[-1] if spoken else next(iter(known), row.title)


def _cpu_seconds() -> float:
    """CPU seconds of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _run_peer(results: Results, row: Row, sizes: dict[str, Any], run: Callable) -> None:
    """Runs the peer of a row; some are there already, measured for another row.

    The peer of the whole loop is the bare step of another row.
    """
    if row.beside:
        for line in results.of_row(row.beside).values():
            if "ms" in line.get("peer", {}):
                results.add(row.title, row.name, "peer", line["peer"])
        return
    if row.job != "loop":
        ours = results.lines.get(row.title, {}).get("ours", {})
        run("peer", row, sizes | {"batches": ours.get("batches")})
        return
    for line in results.of_row(row.peer).values():
        bare = {k: v for k, v in line.get("ours", {}).items() if k not in ("failed", "log")}
        if "ms" in bare:
            results.add(row.title, row.name, "peer", bare | {"name": "the bare step"})
            return
    results.add(row.title, row.name, "peer", {"failed": f"the row {row.peer} was not measured"})


def _stop(number: int, frame: Any) -> None:
    raise KeyboardInterrupt(number)


def _work(options: argparse.Namespace) -> None:
    """The worker's side."""
    from accelerating import ours
    from accelerating.clock import report

    if options.worker == "device":
        from accelerating.inputs import write_inputs

        write_inputs(options.folder, options.tiny)
        sizes = {row.name: row.sizes(options.folder, options.tiny) for row in ROWS}
        report("device", device=ours.device(), sizes=sizes)
        return
    row = next(row for row in ROWS if row.name == options.row)
    job = ours.Job(
        row=row,
        tiny=options.tiny,
        warm=options.worker == "warm",
        folder=options.folder,
        started=options.started,
        sizes=options.sizes,
    )
    if options.worker != "peer":
        ours.JOBS[row.job](job)
        return
    try:
        from accelerating import peers

        peers.JOBS[row.job](job)
    except ModuleNotFoundError as error:
        sys.exit(f"{error.name} is not installed")


if __name__ == "__main__":
    sys.exit(main())
