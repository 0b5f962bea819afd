"""Trains a config in a run folder, or resumes where it stopped.

python scripts/train.py --config=configs/gpt_char.py --workdir=runs/gpt_char

On several hosts, start the same command on each. SLURM, Open MPI, Kubernetes and TPU pods number
the processes; elsewhere give --coordinator, --num_processes and --process_id.
"""

from absl import flags
from ml_collections import config_flags

from transformer import command_line
from transformer.errors import ConfigError

flags.DEFINE_string("workdir", None, "The run folder; created if it does not exist.")
flags.DEFINE_bool("dry_run", False, "Only shows what would be trained.")
flags.DEFINE_bool("compile", False, "With --dry_run: also shows the memory of a step.")
flags.DEFINE_bool("json", False, "Prints one JSON object on stdout.")
flags.DEFINE_string(
    "profile", None, "STEP:COUNT traces COUNT steps after STEP, into WORKDIR/profile."
)
flags.DEFINE_bool("dump_hlo", False, "Writes the compiled programs as text, into WORKDIR/hlo.")
flags.DEFINE_string("coordinator", None, "HOST:PORT of the first of several processes.")
flags.DEFINE_integer("num_processes", None, "How many processes there are.", lower_bound=1)
flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.", lower_bound=0)
flags.DEFINE_integer(
    "heartbeat_seconds",
    30,
    "Silence after which a process is considered dead.",
    lower_bound=1,
    upper_bound=10**6,
)
config_flags.DEFINE_config_file("config", None, "The config file, as FILE.py or FILE.py:VARIANT.")


def main() -> int:
    """Trains, or shows the plan."""
    values = command_line.FLAGS
    from transformer.runtime import dump_programs, join_processes

    if values.dump_hlo:
        dump_programs(command_line.required_workdir() / "hlo")
    join_processes(
        values.coordinator, values.num_processes, values.process_id, values.heartbeat_seconds
    )
    config = command_line.loaded_config(command_line.FLAGS)
    as_json = command_line.FLAGS.json
    if values.compile and not values.dry_run:
        raise ConfigError("--compile is for --dry_run: training compiles its step anyway.")
    if command_line.FLAGS.dry_run:
        from transformer.planning import dry_run

        plan = dry_run.plan(config, compiles=values.compile)
        command_line.print_json(plan) if as_json else dry_run.show(plan)
        return 0
    from transformer.training.loop import train
    from transformer.training.profiling import Span

    span = None if values.profile is None else Span.of(values.profile)
    code, result = train(config, command_line.required_workdir(), profile=span)
    if as_json:
        command_line.print_json(result)
    return code


if __name__ == "__main__":
    command_line.run(main)
