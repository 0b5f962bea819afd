"""Writes one vector for each line of standard input.

python scripts/embed.py --workdir=runs/bert --output=vectors.npy < lines.txt
python scripts/embed.py --workdir=runs/minilm --output=vectors.safetensors --pooling=cls < lines.txt

A run of a published model uses its publisher's settings: pooling, normalization, maximum number of
tokens, and prompt. Other runs average the states of all tokens and normalize to length 1. Flags
override these settings.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

from absl import flags

from transformer import command_line
from transformer.command_line import LENGTHS
from transformer.errors import ConfigError, DataError

flags.DEFINE_string("workdir", None, "The run folder.")
flags.DEFINE_string("checkpoint", "best", "best, last, a step, or last:N for the mean of N.")
flags.DEFINE_string("output", None, "The file to write: .npy, or .safetensors (`embeddings`).")
flags.DEFINE_list("pooling", None, "How to pool a line: mean, cls, max, or several of them.")
flags.DEFINE_bool("normalize", None, "Normalizes all vectors to length 1.")
flags.DEFINE_string("prompt_name", None, "The name of the model's prompt to put before each line.")
flags.DEFINE_integer("max_length", None, "Maximum tokens of a line.", **LENGTHS)
flags.DEFINE_integer("batch_size", 32, "Lines per batch.", lower_bound=1, upper_bound=1 << 16)
flags.DEFINE_bool("json", False, "Prints one JSON object on stdout.")


def main() -> int:
    """Opens the run, embeds, writes."""
    values = command_line.FLAGS
    from transformer.checks import require_writable_file
    from transformer.files import replacing

    workdir = command_line.required_workdir()
    output = Path(values.output or "")
    if output.suffix not in (".npy", ".safetensors"):
        raise ConfigError("where to? Give --output=FILE.npy or --output=FILE.safetensors")
    pooling = values.pooling
    if pooling is not None and (not pooling or len(set(pooling)) < len(pooling)):
        raise ConfigError(f"--pooling={','.join(pooling)}: mean, cls, max, or several, each once.")
    require_writable_file(output, "--output")
    import numpy as np

    from transformer.data.text.embeddings import load_embedding
    from transformer.decoding.embed import embed
    from transformer.interop.formats.safetensors import write_safetensors
    from transformer.progress import counting
    from transformer.runs.opening import open_encoder

    run: Any = open_encoder(workdir, values.checkpoint)
    usual = load_embedding(workdir)
    context = run.model.context
    max_length = values.max_length or min(usual.max_length or context, context)
    if max_length > context:
        raise ConfigError(
            f"--max_length is {max_length}, and the model reads {context} tokens at most."
        )
    lines = list(command_line.standard_input_lines())
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise DataError(f"line {number} of the input is empty: give a text.")
    if not lines:
        raise DataError("standard input is empty: give one text a line.")
    how = dataclasses.replace(
        usual,
        pooling=tuple(pooling or usual.pooling),
        normalize=usual.normalize if values.normalize is None else values.normalize,
        max_length=max_length,
    )
    with counting(len(lines), "embedded", "sentences") as update:
        vectors = embed(
            run.model,
            run.params,
            run.task.load_tokenizer(workdir),
            lines,
            how,
            prompt=usual.prompt(values.prompt_name),
            batch_size=values.batch_size,
            on_progress=update,
            on_cut=functools.partial(say_cut, len(lines), max_length, context),
        )
    if output.suffix == ".npy":
        with replacing(output) as file:
            np.save(file, vectors)
    else:
        write_safetensors({"embeddings": vectors}, output)
    if values.json:
        shape = list(vectors.shape)
        command_line.print_json({"step": run.step, "output": str(output), "shape": shape})
    else:
        print(f"{output}: {vectors.shape[0]} vectors of {vectors.shape[1]} numbers")
    return 0


def say_cut(total: int, max_length: int, context: int, count: int) -> None:
    """Reports how many lines were truncated."""
    from transformer.tasks.parts.encoder import too_long

    if count:
        cut = too_long(max_length, context)
        command_line.say(f"{count:,} of {total:,} inputs {cut}: their ends were not read.")


if __name__ == "__main__":
    command_line.run(main)
