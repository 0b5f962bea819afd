"""Saves the adapters of a run alone, or makes a run with adapters merged into the model.

python scripts/adapters.py --workdir=runs/adapted --output=adapter.safetensors
python scripts/adapters.py --base=runs/bert --adapter=adapter.safetensors --workdir=runs/merged
"""

from pathlib import Path

from absl import flags

from transformer import command_line
from transformer.errors import ConfigError

flags.DEFINE_string("workdir", None, "The run whose adapters to save, or the run folder to create.")
flags.DEFINE_string("output", None, "The safetensors file to write.")
flags.DEFINE_string("adapter", None, "A file written with --output, to merge.")
flags.DEFINE_string("base", None, "The run that the adapters were trained from.")
flags.DEFINE_string("checkpoint", "best", "Which checkpoint of the run to read.")


def main() -> int:
    """Saves or merges adapters."""
    values = command_line.FLAGS
    workdir = command_line.required_workdir()
    saves, merges = bool(values.output), bool(values.adapter and values.base)
    if saves == merges:
        raise ConfigError("give --output to save adapters, or --base and --adapter to merge them.")
    from transformer.checks import require_writable_file
    from transformer.runs.adapters import merge_adapter, save_adapter

    if saves:
        require_writable_file(Path(values.output), "--output")
        saved = save_adapter(workdir, Path(values.output), values.checkpoint)
        print(f"{values.output}: {saved.adapter:,} numbers, beside {saved.model:,} of the model")
    else:
        merge_adapter(Path(values.base), Path(values.adapter), workdir, values.checkpoint)
        print(f"{workdir}: a run with the adapters of {values.adapter} merged")
    return 0


if __name__ == "__main__":
    command_line.run(main)
