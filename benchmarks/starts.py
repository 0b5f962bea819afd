"""Time from the start of `train.py` to its first step, with and without compiled programs.

python benchmarks/starts.py --json=starts.json
python benchmarks/starts.py configs/gpt_char.py configs/translation.py --seconds=300

Each config is started in a process of its own with an empty cache folder, ended as soon as the
metrics of its first step are written, and started again with what the first one left there:
compiled programs, tokenizers and tokens. What cannot start without own files or another run, or
exceeds the processor seconds, says so, and the rest goes on. Columns: seconds and processor
seconds (of all threads, so more than the seconds on several cores), first without a cache, then
with one. On a busy machine compare processor seconds.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
# Every step is written at once, and not only when the next one is on its way.
FLAGS = ("--config.train.log_every=1 steps", "--config.train.evaluate_every=1 steps")
_TICK = os.sysconf("SC_CLK_TCK")


class Start(NamedTuple):
    """How long a start took.

    Attributes:
        seconds: to the metrics of the first step.
        processor: seconds of all threads until then.
        why_not: why there was no first step; empty if there was one.
    """

    seconds: float
    processor: float
    why_not: str = ""


def start(config: str, cache: Path, limit: float) -> Start:
    """Starts a run and kills it after its first step.

    Args:
        config: a config file, perhaps with a variant.
        cache: the folder of all caches.
        limit: the most processor seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        workdir, said = Path(folder) / "run", Path(folder) / "stderr"
        command = (sys.executable, "scripts/train.py", f"--config={config}", *FLAGS)
        environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
        with said.open("wb") as stderr:
            begin = time.monotonic()
            process = subprocess.Popen(
                (*command, f"--workdir={workdir}"),
                cwd=ROOT,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )
        try:
            while not _has_step(workdir):
                seconds = time.monotonic() - begin
                if process.poll() is not None:
                    lines = said.read_text("utf-8").strip().splitlines() or ["it ended"]
                    return Start(seconds, 0.0, lines[-1])
                processor = _processor_seconds(process.pid)
                if processor > limit:
                    return Start(seconds, processor, f"over {limit:.0f} s")
                time.sleep(0.02)
            return Start(time.monotonic() - begin, _processor_seconds(process.pid))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _has_step(workdir: Path) -> bool:
    """Whether the metrics of a step are written."""
    try:
        return '"split": "train"' in (workdir / "metrics.jsonl").read_text("utf-8")
    except FileNotFoundError:
        return False


def _processor_seconds(pid: int) -> float:
    """Seconds of a process in user and system mode; its name may have spaces."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def row(config: str, cold: Start, warm: Start | None) -> str:
    """One line of the table."""
    starts = (cold, *([] if warm is None else [warm]))
    cells = [f"{each.seconds:8.1f} {each.processor:8.1f}" for each in starts]
    why_not = next((f"  {each.why_not}" for each in starts if each.why_not), "")
    return f"{config:36} {' '.join(cells)}{why_not[:200]}"


def main() -> None:
    """Measures and prints, each config as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("configs", nargs="*", help="config files; all if there are none")
    parser.add_argument(
        "--seconds", type=float, default=180.0, help="the most processor seconds of a start"
    )
    parser.add_argument("--json", type=Path, help="a file for one JSON object a line")
    options = parser.parse_args()
    known = sorted(f"configs/{path.name}" for path in (ROOT / "configs").glob("*.py"))
    print(f"{'':36} {'seconds':>8} {'CPU':>8} {'again':>8} {'CPU':>8}")
    for config in options.configs or known:
        with tempfile.TemporaryDirectory() as cache:
            cold = start(config, Path(cache), options.seconds)
            warm = None if cold.why_not else start(config, Path(cache), options.seconds)
        print(row(config, cold, warm), flush=True)
        if options.json:
            content = {
                "config": config,
                "cold": cold._asdict(),
                "warm": None if warm is None else warm._asdict(),
            }
            with options.json.open("a", encoding="utf-8") as file:
                file.write(json.dumps(content) + "\n")


if __name__ == "__main__":
    main()
