"""Trains a config with many overrides, resumes where it stopped, and reports.

python scripts/sweep.py --config=configs/gpt_char.py --sweep=learning_rate,seed --workdir=runs/sweep
python scripts/sweep.py --config=configs/gpt_char.py --workdir=runs/search --search=optuna \
    --trials=30 --space='optimizer.learning_rate=log(1e-4,1e-2)'
python scripts/sweep.py --collect --workdir=runs/sweep
"""

import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from transformer import command_line
from transformer.installed import as_typed

COUNTS = {"lower_bound": 1, "upper_bound": 10**6}

flags.DEFINE_string("workdir", None, "The folder of the sweep; created if it does not exist.")
flags.DEFINE_bool("json", False, "Prints one JSON object on stdout.")
flags.DEFINE_bool("collect", False, "Only writes the report of existing trials.")
flags.DEFINE_bool("dry_run", False, "Only checks and lists the trials of a grid.")
flags.DEFINE_list("sweep", [], "Names of sweeps of the config file; their product is taken.")
flags.DEFINE_multi_string("grid", [], "A further sweep, KEY=VALUE,VALUE,...; may be repeated.")
flags.DEFINE_string("search", "", "optuna: searches a space instead of a grid.")
flags.DEFINE_integer("trials", 20, "Number of trials of a search, over all workers.", **COUNTS)
flags.DEFINE_multi_string(
    "space", [], "Search space: KEY=log(LOW,HIGH), uniform(LOW,HIGH) or choice(A,B,...)."
)
flags.DEFINE_string("sampler", "tpe", "Sampler of a search: tpe or random.")
flags.DEFINE_string("pruner", "hyperband", "Pruner of a search: hyperband or none.")
flags.DEFINE_string("storage", "", "Storage URL of Optuna for a search; empty for a journal.")
flags.DEFINE_integer("search_seed", 0, "Seed of the sampler of a search.", lower_bound=0)
flags.DEFINE_string("vectorize", "auto", "auto, none, scan, vmap or processes.")
flags.DEFINE_integer(
    "population", 16, "Maximum trials in one program, for scan and vmap.", **COUNTS
)
flags.DEFINE_integer(
    "workers", 2, "Number of workers, for --vectorize=processes.", lower_bound=1, upper_bound=1000
)
flags.DEFINE_string("shard", "", "I/N: only this part of a grid, I from 0 to N-1.")
flags.DEFINE_bool("retry_failed", False, "Trains failed trials again.")
flags.DEFINE_bool("worker", False, "Trains as one of several workers, without a report.")
config_flags.DEFINE_config_file("config", None, "The config file, as FILE.py or FILE.py:VARIANT.")


def main() -> int:
    """Trains the remaining trials, then reports on all of them."""
    given = command_line.FLAGS
    workdir = command_line.required_workdir()
    from transformer.sweeps import report, sweep

    code = 0
    if not given.collect:
        config = command_line.loaded_config(given)
        options = sweep.Options(
            sweeps=given.sweep,
            grids=given.grid,
            search=given.search,
            trials=given.trials,
            space=given.space,
            sampler=given.sampler,
            pruner=given.pruner,
            storage=given.storage,
            seed=given.search_seed,
            vectorize="none" if given.worker else given.vectorize,
            population=given.population,
            workers=given.workers,
            shard=given.shard,
            retry_failed=given.retry_failed,
        )
        options.check()
        # Without the variant.
        source = Path(config_flags.get_config_filename(given["config"]).partition(":")[0])
        if given.dry_run:
            planned = sweep.plan(config, source, options)
            command_line.print_json(planned) if given.json else report.show_plan(planned)
            return 0
        if options.vectorize == "processes":
            sweep.check_sweep(config, source, sweep.Folder(workdir), options, sweep.Shared())
            worker = [*sys.argv, "--worker", "--nojson", "--noretry_failed"]
            code = sweep.in_processes(worker, options.workers)
        else:
            start = as_typed("python scripts/train.py").split()
            command = [*start, *config_flags_of(sys.argv[1:])]
            code = sweep.run_sweep(config, source, workdir, options, command, command_line.say)
        if given.worker or code:
            return code
    result = sweep.finish(workdir, given.storage)
    if given.json:
        command_line.print_json(result)
    else:
        report.show_table(result["trials"])
        print(f"{report.counted(result['trials'])} Report: {result['report']}")
    return 1 if result["failed"] else 0


def config_flags_of(arguments: list[str]) -> list[str]:
    """The arguments that define the config."""
    found = []
    for one, after in zip(arguments, [*arguments[1:], ""], strict=True):
        if one.startswith("--config"):
            found.append(one if "=" in one else f"{one}={after}")
    return found


if __name__ == "__main__":
    command_line.run(main)
