"""Evaluates a run on its validation data, or on other files in the format of its task.

python scripts/evaluate.py --workdir=runs/gpt_char
python scripts/evaluate.py --workdir=runs/gpt_char --path=other.txt
python scripts/evaluate.py --workdir=runs/languages --path=other.jsonl
python scripts/evaluate.py --workdir=runs/mae --neighbors=20
python scripts/evaluate.py --workdir=runs/dates --source=test.en --reference=test.de
python scripts/evaluate.py --workdir=runs/dates --source=test.en --reference=test.de --score
python scripts/evaluate.py --workdir=runs/summaries --path=other.jsonl --beam_size=8
"""

import sys
from typing import Any

from absl import flags

from transformer import command_line
from transformer.command_line import BEAMS, LENGTHS
from transformer.errors import ConfigError

flags.DEFINE_string("workdir", None, "The run folder.")
flags.DEFINE_string("checkpoint", "best", "best, last, a step, or last:N for the mean of N.")
flags.DEFINE_string("path", None, "Another file (or folder) in the format of config.task.")
flags.DEFINE_string("source", None, "Other sentences, for a translation model.")
flags.DEFINE_string("reference", None, "Their translations, line by line.")
flags.DEFINE_bool("score", False, "Prints the log probability of each reference instead.")
flags.DEFINE_integer("beam_size", None, "Number of hypotheses when translating.", **BEAMS)
flags.DEFINE_float("length_penalty", None, "0 compares log probabilities.", lower_bound=0.0)
flags.DEFINE_integer(
    "max_length", None, "Maximum tokens of a text; by default as in training.", **LENGTHS
)
flags.DEFINE_integer(
    "neighbors", None, "Images: classify by this many nearest training images.", lower_bound=1
)
flags.DEFINE_bool("json", False, "Prints one JSON object on stdout.")


def main() -> int:
    """Opens the run, evaluates, prints."""
    values = command_line.FLAGS
    workdir = command_line.required_workdir()
    if (values.source is None) != (values.reference is None):
        raise ConfigError("--source and --reference belong together: give both.")
    if values.path and values.source:
        raise ConfigError("give either --path or --source and --reference.")
    paths = [path for path in (values.path, values.source, values.reference) if path]
    from transformer import tasks
    from transformer.runs.evaluating import evaluate_run
    from transformer.runs.opening import open_run
    from transformer.tasks.parts.abilities import FindsNeighbors, Noted, Rewrites, names_of

    run: Any = open_run(workdir, values.checkpoint)
    changed = ("beam_size", "length_penalty", "max_length")
    search = {name: getattr(values, name) for name in changed[:2] if values[name].present}
    job = run.config.task.name
    for flag in (*search, *(["score"] if values.score else [])):
        if not isinstance(run.task, Rewrites):
            known = ", ".join(names_of(tasks, Rewrites))
            raise ConfigError(f"--{flag} is for {known}, and {workdir} was trained for {job}.")
    run = run.with_task(**{name: getattr(values, name) for name in changed})
    data = run.task.load_validation(paths, workdir) if paths else run.task.load(workdir)
    for note in data.notes if isinstance(data, Noted) else ():
        print(note, file=sys.stderr)
    if values.score:
        return score(run, data)
    result = {"data": ", ".join(paths) or "validation"}
    if values.neighbors is None:
        result |= evaluate_run(run, data)
    elif paths or not isinstance(data, FindsNeighbors):
        raise ConfigError("--neighbors is for runs on images and their own data, without --path.")
    else:
        result |= data.neighbor_scores(run.model, run.params, values.neighbors)
    if values.json:
        command_line.print_json(result)
    else:
        for name, value in result.items():
            print(f"{name:<16} {value:.4f}" if isinstance(value, float) else f"{name:<16} {value}")
    return 0


def score(run, data) -> int:
    """Prints the log probability of each reference and its number of tokens, including the end."""
    from transformer.decoding.translate import score_pairs

    log_probs, counts = score_pairs(run.model, run.params, data.validation)
    if command_line.FLAGS.json:
        command_line.print_json({"log_probs": log_probs.tolist(), "tokens": counts.tolist()})
    else:
        for log_prob, count in zip(log_probs, counts, strict=True):
            print(f"{log_prob:.4f}\t{count}")
    return 0


if __name__ == "__main__":
    command_line.run(main)
