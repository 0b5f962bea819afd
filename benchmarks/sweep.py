"""Sixteen trials of a small GPT: launched one by one, compiled one by one, and shared.

python benchmarks/sweep.py

Measured in one run: launches of `scripts/train.py`, each without compiled programs, and with those
of the first launch on disk (only some are run; their mean stands for all); all trials in one
process that compiles each; and `scripts/sweep.py` with one compiled program for all: one after
another, by `lax.map`, and together by `vmap`. Seconds are from start to end of a process, including
compilation and report; every way begins without compiled programs on disk. The last column is the
largest difference of a trial's final loss from its run alone.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs" / "gpt_char.py"


def grid(trials, seeds=2):
    """Overrides: learning rates a factor of 1.5 apart, and two seeds of each."""
    rates = [5e-4 * 1.5**power for power in range(trials // seeds)]
    return [
        {"optimizer.learning_rate": rate, "train.seed": seed}
        for rate in rates
        for seed in range(seeds)
    ]


def base_flags(options):
    return [
        f"--config={CONFIG}:{options.size}",
        f"--config.task.path={options.path}",
        f"--config.train.duration={options.steps}",
        f"--config.train.evaluate_every={options.steps}",
        f"--config.train.save_every={options.steps}",
        "--config.train.tensorboard=False",
    ]


def timed(command, cache):
    """Seconds and standard output of a command that keeps compiled programs in a folder."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "XDG_CACHE_HOME": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return seconds, done.stdout


def launches(options, folder, count, *, shared):
    """Seconds and losses of several launches of `train.py`.

    They share compiled programs on disk, or each begins without any.
    """
    losses, seconds = {}, []
    for index, overrides in enumerate(grid(options.trials)[:count]):
        flags = [f"--config.{key}={value}" for key, value in overrides.items()]
        command = [str(ROOT / "scripts/train.py"), *base_flags(options), *flags]
        cache = folder / ("cache" if shared else f"cache{index}")
        run = folder / f"run{index}"
        one, output = timed([*command, f"--workdir={run}", "--json"], cache)
        seconds.append(one)
        losses[str(overrides)] = json.loads(output)["validation"]["loss"]
    return seconds, losses


def launched_anew(options, folder):
    """Launches of all trials, each compiling everything; two are measured."""
    seconds, losses = launches(options, folder, 2, shared=False)
    return sum(seconds) / len(seconds) * options.trials, losses


def launched(options, folder):
    """Launches of all trials, the first compiling for the others; some are measured."""
    seconds, losses = launches(options, folder, options.launches, shared=True)
    rest = sum(seconds[1:]) / max(1, len(seconds) - 1)
    return seconds[0] + rest * (options.trials - 1), losses


def compiled_each(options, folder):
    """All trials in one process, without sharing programs."""
    command = [__file__, "--worker", f"--folder={folder}", *sys.argv[1:]]
    seconds, output = timed(command, folder / "cache")
    return seconds, json.loads(output.splitlines()[-1])


def worker(options):
    """The worker that `compiled_each` starts."""
    sys.path.insert(0, str(ROOT))
    from absl import flags
    from ml_collections import config_flags

    from transformer.runtime import prepare_process
    from transformer.sweeps.trials import make_trials
    from transformer.training.loop import train

    prepare_process()
    import jax

    jax.config.update("jax_enable_compilation_cache", False)
    sys.argv = [__file__, *base_flags(options)]
    config_flags.DEFINE_config_file("config")
    flags.FLAGS(sys.argv)
    losses = {}
    for trial in make_trials(flags.FLAGS.config, grid(options.trials)):
        _, result = train(trial.config, Path(options.folder) / trial.id, curves=False)
        losses[str(trial.overrides)] = result["validation"]["loss"]
        jax.clear_caches()
    print(json.dumps(losses))


def swept(vectorize):
    """`scripts/sweep.py`, all trials in one process."""

    def run(options, folder):
        overrides = grid(options.trials)
        values = {
            key: ",".join(dict.fromkeys(str(one[key]) for one in overrides)) for key in overrides[0]
        }
        grids = [f"--grid={key}={choices}" for key, choices in values.items()]
        command = [str(ROOT / "scripts/sweep.py"), *base_flags(options), *grids, "--json"]
        command += [f"--vectorize={vectorize}", f"--workdir={folder / 'sweep'}"]
        seconds, output = timed([*command, f"--population={options.trials}"], folder / "cache")
        rows = json.loads(output)["trials"]
        return seconds, {str(row["overrides"]): row["validation_loss"] for row in rows}

    return run


WAYS = {
    "launches, compiling each": launched_anew,
    "launches of train.py": launched,
    "one process, compiling each": compiled_each,
    "sweep.py, one after another": swept("none"),
    "sweep.py, lax.map": swept("scan"),
    "sweep.py, vmap": swept("vmap"),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="tiny", help="variant of configs/gpt_char.py")
    parser.add_argument("--path", default="", help="a text file; empty for Shakespeare")
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--launches", type=int, default=4, help="how many to measure")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options)
        return
    found = {}
    for name, way in WAYS.items():
        with tempfile.TemporaryDirectory() as folder:
            found[name] = way(options, Path(folder))
    # A trial alone is its launch if measured, else its turn in the process that shares nothing.
    alone = found["one process, compiling each"][1] | found["launches of train.py"][1]
    first = found["launches, compiling each"][0]
    print(f"{'':30}{'seconds':>9}{'faster':>9}{'difference':>13}")
    for name, (seconds, losses) in found.items():
        worst = max(abs(losses[key] - alone[key]) for key in losses)
        print(f"{name:30}{seconds:9.1f}{first / seconds:8.1f}x{worst:13.1e}")
    print(
        f"{options.trials} trials of {options.steps} steps; launches: {options.launches} measured."
    )


if __name__ == "__main__":
    main()
