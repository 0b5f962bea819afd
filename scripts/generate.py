"""Generates text with a trained model: continues a prompt, or answers standard input by line.

python scripts/generate.py --workdir=runs/gpt_char --prompt="ROMEO:"
python scripts/generate.py --workdir=runs/dates < sentences.en > sentences.de
python scripts/generate.py --workdir=runs/summaries < texts.txt > summaries.txt
"""

import re
import sys
from typing import Any

from absl import flags

from transformer import command_line
from transformer.command_line import BEAMS, LENGTHS
from transformer.errors import ConfigError

flags.DEFINE_string("workdir", None, "The run folder.")
flags.DEFINE_string("checkpoint", "best", "best, last, a step, or last:N for the mean of N.")
flags.DEFINE_bool("json", False, "Prints one JSON object on stdout when all is written.")

# Flags of language models. By default the run's config (the publisher's settings of an imported
# model) decides how and how many tokens are sampled; else --temperature=0.8 --max_new_tokens=500.
flags.DEFINE_string("prompt", "\n", "The beginning of the text; empty for the model's begin token.")
flags.DEFINE_integer(
    "max_new_tokens", None, "How many tokens to add.", lower_bound=0, upper_bound=2**31 - 1
)
flags.DEFINE_integer(
    "num_samples", 1, "How many texts to generate.", lower_bound=1, upper_bound=1 << 16
)
flags.DEFINE_float("temperature", None, "Divides the logits; 0 takes the most probable token.")
flags.DEFINE_integer("top_k", None, "Samples from this many best tokens; 0 from all.")
flags.DEFINE_float("top_p", None, "Samples from the fewest tokens of this total probability.")
flags.DEFINE_float("min_p", None, "Drops tokens less probable than this fraction of the best.")
flags.DEFINE_string(
    "stop",
    None,
    "Ends a text before this string, as before the model's end tokens; empty for none.",
)
flags.DEFINE_integer(
    "seed", 0, "The same seed gives the same text.", lower_bound=0, upper_bound=2**32 - 1
)
flags.DEFINE_string(
    "draft",
    None,
    "Writes the same text sooner: lookup guesses tokens from the text so far, a run folder has a "
    "smaller model that guesses; the model checks all guesses in one pass.",
)
flags.DEFINE_integer(
    "num_guesses", None, "How many tokens --draft guesses at once.", lower_bound=1, upper_bound=64
)
flags.DEFINE_enum(
    "weights", None, ["int8"], "Rounds kernels and the token table to 8 bits: less memory."
)
flags.DEFINE_enum("cache", None, ["int8"], "Rounds cached keys and values to 8 bits: less memory.")

# Flags of encoder-decoders; by default as in the config of the run.
flags.DEFINE_integer("beam_size", None, "Number of hypotheses; 1 is greedy.", **BEAMS)
flags.DEFINE_float("length_penalty", None, "0 compares log probabilities.", lower_bound=0.0)
flags.DEFINE_integer(
    "max_len", None, "Maximum tokens of an output.", lower_bound=1, upper_bound=1 << 16
)
flags.DEFINE_integer("max_source_len", None, "Maximum tokens of a source.", **LENGTHS)
flags.DEFINE_integer(
    "num_return",
    1,
    "Outputs per sentence, different texts. More than one: line number, score, text, with tabs.",
    **BEAMS,
)
flags.DEFINE_enum("too_long", None, ["truncate", "refuse"], "What to do with longer sentences.")

# The default if neither a flag nor the run gives a number.
_MAX_NEW_TOKENS = 500
OF_CONTINUING = (
    "prompt",
    "max_new_tokens",
    "num_samples",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "stop",
    "seed",
    "draft",
    "num_guesses",
    "weights",
    "cache",
)
OF_REWRITING = (
    "beam_size",
    "length_penalty",
    "max_len",
    "max_source_len",
    "num_return",
    "too_long",
)


def main() -> int:
    """Opens the run and generates."""
    values = command_line.FLAGS
    workdir = command_line.required_workdir()
    from transformer import tasks
    from transformer.runs.opening import open_run
    from transformer.tasks.parts.abilities import Continues, Rewrites, names_of

    run: Any = open_run(workdir, values.checkpoint)
    job = run.config.task.name
    if isinstance(run.task, Continues):
        write, foreign, other = continue_prompt, OF_REWRITING, Rewrites
    elif isinstance(run.task, Rewrites):
        write, foreign, other = rewrite_lines, OF_CONTINUING, Continues
    else:
        raise ConfigError(f"{workdir} was trained for {job}, which cannot write texts.")
    for flag in foreign:
        if values[flag].present:
            known = ", ".join(names_of(tasks, other))
            raise ConfigError(f"--{flag} is for {known}, and {workdir} was trained for {job}.")
    write(run, workdir, values)
    return 0


def continue_prompt(run: Any, workdir: Any, values: Any) -> None:
    """Continues `--prompt` and streams the text."""
    import dataclasses

    from transformer.data.reading.text import require_characters, with_line_feeds
    from transformer.decoding.preparing import in_computed_dtypes, unrolled
    from transformer.decoding.sample import OneByOne, as_it_is, write
    from transformer.decoding.speculation import Speculative
    from transformer.nn.caches import in_int8
    from transformer.nn.int8 import weights_in_int8
    from transformer.runs.drafts import open_guesses

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
    tokenizer = task.load_tokenizer(workdir)
    model, params = unrolled(run.model, run.params)
    if values.weights is not None:
        params = weights_in_int8(model, params)
    params = in_computed_dtypes(model, params)
    kept = as_it_is if values.cache is None else in_int8
    writer: Any = OneByOne(model, params, sampling, kept)
    if values.draft is not None:
        guesses = open_guesses(values.draft, run, values.num_guesses)
        writer = Speculative(model, params, sampling, *guesses, kept=kept)
    elif values.num_guesses is not None:
        raise ConfigError("--num_guesses is of --draft: give --draft=lookup, or a run folder.")
    streaming = not values.json and values.num_samples == 1
    prompt = with_line_feeds(require_characters(values.prompt, "--prompt"))
    say_what_is_read(tokenizer, prompt, run.model.context)

    def show(row: int, piece: str) -> None:
        sys.stdout.write(piece)
        sys.stdout.flush()

    if streaming:
        show(0, prompt)
    texts = write(
        model,
        params,
        tokenizer,
        [prompt] * values.num_samples,
        max_new_tokens=count,
        sampling=sampling,
        seed=values.seed,
        stop=task.stop if values.stop is None else values.stop,
        stop_ids=ends,
        begin=task.begin,
        on_text=show if streaming else None,
        writer=writer,
    )
    if values.json:
        command_line.print_json({"step": run.step, "texts": texts})
    elif streaming:
        print()
    else:
        print("\n--------\n".join(texts))
    if isinstance(writer, Speculative) and writer.passes:
        each = writer.tokens / writer.passes
        command_line.say(
            f"{writer.tokens:,} tokens with {writer.passes:,} passes of the model ({each:.2f} a "
            f"pass)."
        )


def say_what_is_read(tokenizer: Any, prompt: str, context: int) -> None:
    """Warns if the model does not read the whole prompt."""
    from transformer.decoding.sample import tokens_read

    count = len(tokenizer.encode_prompt(prompt))
    if (read := tokens_read(count, context)) < count:
        command_line.say(
            f"the prompt has {count:,} tokens and the model's context {context:,}: it goes on from "
            f"the last {read:,}."
        )


def rewrite_lines(run: Any, workdir: Any, values: Any) -> None:
    """Answers standard input; line i of the output belongs to line i of the input."""
    from transformer.composition import with_fields
    from transformer.decoding.translate import translate_stream

    changed = {name: getattr(values, name) for name in ("beam_size", "length_penalty", "too_long")}
    task = run.with_task(**changed).task
    if values.max_source_len is not None:
        # Batches hold no targets here, so sources may be shorter than targets.
        task = with_fields(task, max_length=values.max_source_len)
    limits = {} if values.max_len is None else {"max_length": values.max_len}
    tokenizer = task.load_tokenizer(workdir)
    found = translate_stream(
        run.model,
        run.params,
        tokenizer,
        command_line.standard_input_lines(),
        task.beam(num_return=values.num_return, **limits),
        encode=lambda lines, first: task.encode_sources(tokenizer, lines, first),
        lines_at_once=2000,
        progress=not sys.stdin.isatty(),
        when_cut=(
            f"have more than {task.max_length - 1} tokens (--max_source_len, which counts their "
            f"end): their ends were not read."
        ),
    )
    results, without = [], 0
    for index, outputs in enumerate(found, 1):
        if values.json:
            results.append([{"text": o.text, "score": o.score} for o in outputs])
        elif values.num_return == 1:
            print(one_line(outputs[0].text) if outputs else "", flush=True)
        else:
            for output in outputs:
                text = one_line(output.text).replace("\t", " ")
                print(f"{index}\t{output.score:.4f}\t{text}", flush=True)
        without += not outputs
    if without:
        command_line.say(f"{without:,} inputs have no output: the model gave no finite numbers.")
    if values.json:
        command_line.print_json({"step": run.step, "translations": results})


def one_line(text: str) -> str:
    """An output as one line, since line i is the output of input i."""
    return re.sub(r"[\r\n]", " ", text)


if __name__ == "__main__":
    command_line.run(main)
