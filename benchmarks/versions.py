"""A benchmark of this checkout beside the same benchmark of another one, in turns.

    git worktree add ../before SOME_COMMIT
    python benchmarks/versions.py ../before training.py --size=small
    python benchmarks/versions.py ../before translation.py --job=training

Takes the benchmarks whose worker is called `ours`, with their flags. Both sides count processor
seconds of all threads, so that other work on the machine disturbs less; give both one core
(`taskset -c 0`), or threads that wait for each other are counted, too. Both start once before, as
a process that has compiled its programs is up to 9 percent slower than one that finds them in the
cache. Above 1 in the column of speeds is faster now.
"""

import argparse
import runpy
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def work(root: str, script: str, flags: list[str]) -> None:
    """Is the worker of a checkout, with a clock that counts processor time."""
    time.perf_counter = time.process_time
    folder = Path(root) / "benchmarks"
    sys.path[:1] = [root, str(folder)]
    sys.argv = [script, *flags]
    runpy.run_path(str(folder / script), run_name="__main__")


def main() -> None:
    """Compares two checkouts."""
    from alternate import alternate

    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("before", help="the folder of another checkout")
    parser.add_argument("script", help="a file in benchmarks/; its flags follow")
    parser.add_argument("--rounds", type=int, default=11)
    arguments, flags = parser.parse_known_args()
    flags.append("--worker=ours")
    if not (Path(arguments.before) / "benchmarks" / arguments.script).is_file():
        parser.error(f"{arguments.before} has no benchmarks/{arguments.script}.")
    places = {"before": Path(arguments.before).resolve(), "now": ROOT}
    workers = {
        name: [sys.executable, __file__, "--work", str(root), arguments.script, *flags]
        for name, root in places.items()
    }
    for command in workers.values():
        # Without a line of input it ends as soon as all is compiled.
        subprocess.run(command, input="", stdout=subprocess.DEVNULL, text=True, check=True)
    alternate(workers, rounds=arguments.rounds, items_per_unit=1, item="units")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2], sys.argv[3], sys.argv[4:])
    else:
        main()
