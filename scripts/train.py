"""Trains a config in a run folder, or goes on where it stopped.

python scripts/train.py --config=configs/gpt_char.py --workdir=runs/gpt_char
"""

from absl import flags
from ml_collections import config_flags

from transformer import command_line

flags.DEFINE_string("workdir", None, "The run folder; made if it does not exist.")
flags.DEFINE_bool("dry_run", False, "Shows what would be trained, and trains nothing.")
flags.DEFINE_bool("json", False, "Prints one JSON object on stdout.")
config_flags.DEFINE_config_file("config", None, "The config file, as FILE.py or FILE.py:VARIANT.")


def main() -> int:
    """Calls the loop, or the plan of it."""
    config = command_line.loaded_config(command_line.FLAGS)
    as_json = command_line.FLAGS.json
    if command_line.FLAGS.dry_run:
        from transformer.training import dry_run

        plan = dry_run.plan(config)
        command_line.print_json(plan) if as_json else dry_run.show(plan)
        return 0
    from transformer.training.loop import train

    code, result = train(config, command_line.required_workdir())
    if as_json:
        command_line.print_json(result)
    return code


if __name__ == "__main__":
    command_line.run(main)
