"""Measures a run on its validation data, or a language model on another text file.

python scripts/evaluate.py --workdir=runs/gpt_char
"""

from absl import flags

from transformer import command_line

flags.DEFINE_string("workdir", None, "The run folder.")
flags.DEFINE_string("checkpoint", "best", "best, last, or a step.")
flags.DEFINE_string("path", None, "Another data file, in the format of the task.")
flags.DEFINE_bool("json", False, "Prints one JSON object on stdout.")


def main() -> int:
    """Opens the run, evaluates, prints."""
    workdir = command_line.required_workdir()
    from transformer.training.validation import evaluate_run

    result = evaluate_run(workdir, command_line.FLAGS.checkpoint, command_line.FLAGS.path)
    if command_line.FLAGS.json:
        command_line.print_json(result)
    else:
        for name, value in result.items():
            print(f"{name:<12} {value:.4f}" if isinstance(value, float) else f"{name:<12} {value}")
    return 0


if __name__ == "__main__":
    command_line.run(main)
