"""Answers each line of standard input, or each argument, with a trained model.

python scripts/predict.py --workdir=runs/languages < lines.txt
python scripts/predict.py --workdir=runs/bert <<< "To be or not to [MASK]."
python scripts/predict.py --workdir=runs/vit cat.jpg dog.png

A line is a text, or two texts separated by a tab, depending on the model: a pair of sentences; a
question and its context; words to tag; a text with [MASK] (<mask> for RoBERTa); or the path of an
image. Each line of input gives one line of output, or with --json one JSON object.
"""

import json
import sys
from collections import Counter
from typing import Any

from absl import flags

from transformer import command_line
from transformer.command_line import LENGTHS
from transformer.errors import ConfigError

flags.DEFINE_string("workdir", None, "The run folder.")
flags.DEFINE_string("checkpoint", "best", "best, last, a step, or last:N for the mean of N.")
flags.DEFINE_bool("json", False, "Prints one JSON object for each line.")
flags.DEFINE_integer(
    "max_length", None, "Maximum tokens of a row; by default as in training.", **LENGTHS
)
flags.DEFINE_integer(
    "max_question_length",
    None,
    "Maximum tokens of a question; by default as in training.",
    lower_bound=1,
    upper_bound=LENGTHS["upper_bound"],
)


def main(*arguments: str) -> int:
    """Opens the run and answers."""
    values = command_line.FLAGS
    workdir = command_line.required_workdir()
    from transformer.runs.opening import open_run
    from transformer.tasks.parts.abilities import Predicts

    run: Any = open_run(workdir, values.checkpoint)
    if not isinstance(run.task, Predicts):
        raise ConfigError(
            f"{workdir} was trained for {run.config.task.name}, which cannot answer single lines: "
            f"scripts/generate.py writes with it."
        )
    run = run.with_task(
        max_length=values.max_length, max_question_length=values.max_question_length
    )
    lines = arguments or command_line.standard_input_lines()
    cuts: Counter[str] = Counter()
    try:
        for found in run.task.predict(run.model, run.params, workdir, lines):
            print(json.dumps(found.details, ensure_ascii=False) if values.json else found.text)
            sys.stdout.flush()
            cuts[found.cut] += 1
    finally:
        for cut, count in cuts.items():
            if cut:
                command_line.say(
                    f"{count:,} of {cuts.total():,} inputs {cut}: their ends were not read."
                )
    return 0


if __name__ == "__main__":
    command_line.run(main, takes_arguments=True)
