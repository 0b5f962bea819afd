"""Speaks a text with a trained voice.

python scripts/speak.py --workdir=runs/voice "three five nine" --output=out.wav
python scripts/speak.py --workdir=runs/voice --voice=linda --seed=1 "zero one" --output=out.flac
"""

from pathlib import Path
from typing import Any

from absl import flags

from transformer import command_line
from transformer.errors import ConfigError

flags.DEFINE_string("workdir", None, "The run folder.")
flags.DEFINE_string("checkpoint", "best", "best, last, a step, or last:N for the mean of N.")
flags.DEFINE_string("output", "out.wav", "The file to write: .wav, .flac or .ogg.")
flags.DEFINE_string("voice", None, "The name of the voice; by default the first of the run.")
flags.DEFINE_float("temperature", None, "Divides the logits; 0 is greedy.", lower_bound=0.0)
flags.DEFINE_integer(
    "seed", 0, "The same seed gives the same sound.", lower_bound=0, upper_bound=2**32 - 1
)


def main(*arguments: str) -> int:
    """Opens the run, speaks, writes the file."""
    values = command_line.FLAGS
    workdir, output = command_line.required_workdir(), Path(values.output)
    if len(arguments) != 1:
        raise ConfigError(
            f'{len(arguments)} texts are given: give one, in quotes, such as "three five nine".'
        )
    from transformer.checks import require_writable_file
    from transformer.data.audio.saving import require_sound_file, save_sound
    from transformer.runs.opening import open_run
    from transformer.tasks.parts.speaking import Speaks, Wish

    require_sound_file(output, "--output")
    require_writable_file(output, "--output")
    run: Any = open_run(workdir, values.checkpoint)
    if not isinstance(run.task, Speaks):
        raise ConfigError(
            f"{workdir} was trained for {run.config.task.name}, which does not speak: train with "
            f"configs/voice_digits.py."
        )
    wish = Wish(values.voice, values.temperature, values.seed)
    (sound,) = run.task.speak(run.model, run.params, workdir, arguments, wish)
    save_sound(output, sound.samples, sound.rate)
    seconds = len(sound.samples) / sound.rate
    command_line.say(f"{output}: {seconds:.1f} seconds at {sound.rate:,} samples a second.")
    return 0


if __name__ == "__main__":
    command_line.run(main, takes_arguments=True)
