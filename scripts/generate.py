"""Writes with a trained model: continues a prompt, or answers standard input line by line.

python scripts/generate.py --workdir=runs/gpt_char --prompt="ROMEO:"
python scripts/generate.py --workdir=runs/dates < sentences.en > sentences.de
python scripts/generate.py --workdir=runs/summaries < texts.txt > summaries.txt
"""

import sys
from collections.abc import Callable
from typing import Any

from absl import flags

from transformer import command_line
from transformer.errors import ConfigError

flags.DEFINE_string("workdir", None, "The run folder.")
flags.DEFINE_string("checkpoint", "best", "best, last, a step, or last:N for the mean of N.")
flags.DEFINE_bool("json", False, "Prints one JSON object on stdout when all is written.")

# Of language models. How tokens are chosen, and how many, is as the config of the run says unless
# it is given: as a model's publisher says, or --temperature=0.8 and --max_new_tokens=500.
flags.DEFINE_string("prompt", "\n", "What the text begins with; empty for the model's own begin.")
flags.DEFINE_integer("max_new_tokens", None, "How many tokens to add.", lower_bound=0)
flags.DEFINE_integer("num_samples", 1, "How many texts to write.", lower_bound=1)
flags.DEFINE_float("temperature", None, "Divides the logits; 0 takes the most probable token.")
flags.DEFINE_integer("top_k", None, "Chooses among this many tokens; 0 among all.")
flags.DEFINE_float("top_p", None, "Chooses among the fewest tokens of this total probability.")
flags.DEFINE_float("min_p", None, "Drops tokens less probable than this fraction of the best.")
flags.DEFINE_string(
    "stop",
    None,
    "Ends a text before this string, as before the model's end tokens; empty: at none.",
)
flags.DEFINE_integer("seed", 0, "The same seed writes the same text.")

# Of encoder-decoders. What is not given is as the config of the run says.
flags.DEFINE_integer("beam_size", None, "Hypotheses kept; 1 is greedy.", lower_bound=1)
flags.DEFINE_float("length_penalty", None, "0 compares log probabilities.", lower_bound=0.0)
flags.DEFINE_integer("max_len", None, "Tokens of an output at most.", lower_bound=1)
flags.DEFINE_integer(
    "num_return",
    1,
    "Outputs per sentence. More than one are printed as: line number, score, text, with tabs.",
    lower_bound=1,
)
flags.DEFINE_enum("too_long", None, ["truncate", "refuse"], "What becomes of longer sentences.")

# Where neither a flag nor the run says how many.
_MAX_NEW_TOKENS = 500
OF_PAIRS = ("beam_size", "length_penalty", "max_len", "num_return", "too_long")
FLAGS_OF = {
    "language_modeling": (
        "prompt",
        "max_new_tokens",
        "num_samples",
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "stop",
        "seed",
    ),
    "translation": OF_PAIRS,
    "text_to_text": OF_PAIRS,
}


def main() -> int:
    """Opens the run and writes."""
    values = command_line.FLAGS
    workdir = command_line.required_workdir()
    from transformer.training.runs import open_run

    run: Any = open_run(workdir, values.checkpoint)
    job = run.config.task.name
    if job not in WRITERS:
        raise ConfigError(f"{workdir} is of the task {job}, which writes nothing.")
    for other, names in FLAGS_OF.items():
        for flag in names:
            if flag not in FLAGS_OF[job] and values[flag].present:
                raise ConfigError(f"--{flag} is for {other}, and {workdir} is of {job}.")
    WRITERS[job](run, workdir, values)
    return 0


def continue_prompt(run: Any, workdir: Any, values: Any) -> None:
    """Writes on from `--prompt`, streaming text as it is made."""
    import dataclasses

    from transformer.data.tokenizers import Tokenizer
    from transformer.decoding.sample import write

    task = run.task
    given = {
        name: getattr(values, name)
        for name in ("temperature", "top_k", "top_p", "min_p")
        if getattr(values, name) is not None
    }
    try:
        sampling = dataclasses.replace(task.sampling(), **given)
    except ValueError as error:
        raise ConfigError(f"--{error}") from None
    ends = () if values.stop == "" else task.stop_ids
    usual = _MAX_NEW_TOKENS if task.max_new_tokens is None else task.max_new_tokens
    count = usual if values.max_new_tokens is None else values.max_new_tokens
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
        max_new_tokens=count,
        sampling=sampling,
        seed=values.seed,
        stop=task.stop if values.stop is None else values.stop,
        stop_ids=ends,
        begin=task.begin,
        on_text=show if streaming else None,
    )
    if values.json:
        command_line.print_json({"step": run.step, "texts": texts})
    elif streaming:
        print()
    else:
        print("\n--------\n".join(texts))


def translate_lines(run: Any, workdir: Any, values: Any) -> None:
    """Reads standard input; line i of the output belongs to line i of the input."""
    import dataclasses

    from transformer.decoding.translate import translate_stream

    given = {
        name: getattr(values, name)
        for name in ("beam_size", "length_penalty", "too_long")
        if getattr(values, name) is not None
    }
    task = dataclasses.replace(run.task, **given)
    limits = {} if values.max_len is None else {"max_length": values.max_len}
    tokenizer = task.load_tokenizer(workdir)
    found = translate_stream(
        run.model,
        run.params,
        tokenizer,
        command_line.standard_input_lines(),
        task.beam(num_return=values.num_return, **limits),
        encode=lambda lines, first: task.encode_sources(tokenizer, lines, first),
        # Who types wants an answer to every line.
        lines_at_once=1 if sys.stdin.isatty() else 2000,
    )
    results = []
    for index, outputs in enumerate(found, 1):
        if values.json:
            results.append([{"text": o.text, "score": o.score} for o in outputs])
        elif values.num_return == 1:
            print(outputs[0].text, flush=sys.stdin.isatty())
        else:
            for output in outputs:
                print(f"{index}\t{output.score:.4f}\t{output.text}")
    if values.json:
        command_line.print_json({"step": run.step, "translations": results})


WRITERS: dict[str, Callable[[Any, Any, Any], None]] = {
    "language_modeling": continue_prompt,
    "translation": translate_lines,
    "text_to_text": translate_lines,
}


if __name__ == "__main__":
    command_line.run(main)
