"""Exports a run as a folder that the library `transformers` loads, with equal outputs.

python scripts/export_hf.py --workdir=runs/adapted --target=exported

The folder gets config.json, model.safetensors (several files if it is large) and the tokenizer, or
the preparation of images. Adapters are merged in. The library converts grey images to RGB, but not
colour images to grey: if the run uses grey images, give it grey images.
"""

from pathlib import Path

from absl import flags

from transformer import command_line
from transformer.errors import ConfigError

flags.DEFINE_string("workdir", None, "The run folder.")
flags.DEFINE_string("target", None, "The folder to create.")
flags.DEFINE_string("checkpoint", "best", "best, last, a step, or last:N for the mean of N.")
flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16", "float16"], "Of the weights.")
flags.DEFINE_float(
    "shard_gb", 4.0, "Maximum gigabytes of one file.", lower_bound=0.001, upper_bound=1e6
)
flags.DEFINE_bool("json", False, "Prints one JSON object on stdout.")


def main() -> int:
    """Exports and reports what was written."""
    values = command_line.FLAGS
    workdir = command_line.required_workdir()
    if not values.target:
        raise ConfigError("where to? Give --target=FOLDER")
    from transformer.runs.exporting import export_run

    written = export_run(
        workdir,
        Path(values.target),
        checkpoint=values.checkpoint,
        dtype=values.dtype,
        shard_bytes=int(values.shard_gb * 1e9),
    )
    if values.json:
        command_line.print_json(written)
    else:
        (architecture,) = written["architectures"]
        print(f"{written['num_arrays']} arrays of a {architecture} in {values.target}")
        for note in written["notes"]:
            print(f"NOT AS IN THE RUN: {note}")
    return 0


if __name__ == "__main__":
    command_line.run(main)
