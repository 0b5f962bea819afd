"""Continues a prompt with a trained language model, streaming text as it is made.

python scripts/generate.py --workdir=runs/gpt_char --prompt="ROMEO:"
"""

import sys

from absl import flags

from transformer import command_line
from transformer.errors import ConfigError

flags.DEFINE_string("workdir", None, "The run folder.")
flags.DEFINE_string("checkpoint", "best", "best, last, or a step.")
flags.DEFINE_string("prompt", "\n", "What the text begins with.")
flags.DEFINE_integer("max_new_tokens", 500, "How many tokens to add.", lower_bound=0)
flags.DEFINE_integer("num_samples", 1, "How many texts to write.", lower_bound=1)
flags.DEFINE_float("temperature", 0.8, "Divides the logits; 0 takes the most probable token.")
flags.DEFINE_integer("top_k", 0, "Chooses among this many tokens; 0 among all.")
flags.DEFINE_float("top_p", 1.0, "Chooses among the fewest tokens of this total probability.")
flags.DEFINE_float("min_p", 0.0, "Drops tokens less probable than this fraction of the best.")
flags.DEFINE_string("stop", "", "Ends a text before this string.")
flags.DEFINE_integer("seed", 0, "The same seed writes the same text.")
flags.DEFINE_bool("json", False, "Prints one JSON object on stdout when all is written.")


def main() -> int:
    """Opens the run and writes."""
    values = command_line.FLAGS
    workdir = command_line.required_workdir()
    from transformer.data.tokenizers import Tokenizer
    from transformer.decoding.sample import write
    from transformer.ops.logits import Sampling
    from transformer.training.runs import open_run

    try:
        sampling = Sampling(values.temperature, values.top_k, values.top_p, values.min_p)
    except ValueError as error:
        raise ConfigError(f"--{error}") from None
    run = open_run(workdir, values.checkpoint)
    tokenizer = Tokenizer.load(workdir / "tokenizer.json")
    streaming = not values.json and values.num_samples == 1

    def show(row: int, piece: str) -> None:
        sys.stdout.write(piece)
        sys.stdout.flush()

    if streaming:
        show(0, values.prompt)
    texts = write(
        run.model,
        run.params,
        tokenizer,
        [values.prompt] * values.num_samples,
        max_new_tokens=values.max_new_tokens,
        sampling=sampling,
        seed=values.seed,
        stop=values.stop,
        on_text=show if streaming else None,
    )
    if values.json:
        command_line.print_json({"step": run.step, "texts": texts})
    elif streaming:
        print()
    else:
        print("\n--------\n".join(texts))
    return 0


if __name__ == "__main__":
    command_line.run(main)
