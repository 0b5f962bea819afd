"""Writes recordings down: any length, any sampling rate; WAV, FLAC, Ogg, MP3.

python scripts/transcribe.py --workdir=runs/whisper interview.mp3
python scripts/transcribe.py --workdir=runs/whisper --timestamps *.flac
python scripts/transcribe.py --workdir=runs/whisper --format=srt --output=subtitles *.flac
python scripts/transcribe.py --workdir=runs/whisper --format=json --word_timestamps talk.flac
python scripts/transcribe.py --workdir=runs/whisper --language=de --task=translate rede.ogg

Texts go to standard output, or into a file for each recording in the folder --output. Models that
know several languages find out which one is spoken, unless --language says it.
"""

import sys
from pathlib import Path
from typing import Any

from absl import flags

from transformer import command_line
from transformer.errors import ConfigError

# The names in `data/audio/writing.py`, whose import would take seconds.
FORMATS = ("txt", "json", "srt", "vtt", "tsv")

flags.DEFINE_string("workdir", None, "The run folder.")
flags.DEFINE_string("checkpoint", "best", "best, last, a step, or last:N for the mean of N.")
flags.DEFINE_bool("timestamps", None, "Shows when each part was said.")
flags.DEFINE_bool("word_timestamps", None, "Says in JSON when each word was said.")
flags.DEFINE_enum("format", "txt", FORMATS, "How transcripts are written.")
flags.DEFINE_string("output", None, "A folder for one file for each recording.")
flags.DEFINE_string("language", None, "The language that is spoken, as a code such as en.")
flags.DEFINE_enum(
    "task", None, ("transcribe", "translate"), "transcribe, or translate into English."
)
flags.DEFINE_integer("batch_size", 8, "Recordings at once.", lower_bound=1, upper_bound=1 << 10)
flags.DEFINE_integer("beam_size", None, "Hypotheses; 1 is greedy.", lower_bound=1, upper_bound=100)
flags.DEFINE_list(
    "temperatures", None, "Tried one after another while a text seems wrong, such as 0,0.4,0.8."
)
flags.DEFINE_bool("condition", None, "Whether each window is told the text before it.")
flags.DEFINE_string("prompt", None, "What the first window is told, such as names that occur.")
flags.DEFINE_integer("seed", 0, "Of temperatures above 0.", lower_bound=0, upper_bound=2**32 - 1)


def main(*arguments: str) -> int:
    """Opens the run and writes recordings down."""
    values = command_line.FLAGS
    workdir = command_line.required_workdir()
    if not arguments:
        raise ConfigError("no recording is given: put the paths of recordings behind the flags.")
    paths = [Path(argument) for argument in arguments]
    if values.word_timestamps and values.format != "json":
        raise ConfigError("--word_timestamps is for JSON: add --format=json.")
    output = _output_folder(values.output, paths, values.format)
    from transformer.data.audio.reading import read_header
    from transformer.data.audio.writing import WRITERS
    from transformer.files import write_text
    from transformer.progress import counting
    from transformer.runs.opening import open_run
    from transformer.tasks.parts.transcribing import Asked, Transcribes

    seconds = [read_header(path).seconds for path in paths]
    run: Any = open_run(workdir, values.checkpoint)
    if not isinstance(run.task, Transcribes):
        raise ConfigError(
            f"{workdir} was trained for {run.config.task.name}, which writes no recordings down: "
            f"import a Whisper with scripts/import_hf.py, or train with configs/speech_digits.py."
        )
    with_times = values.timestamps
    if with_times is None and values.format in ("srt", "vtt", "tsv"):
        with_times = True
    asked = Asked(
        timestamps=with_times,
        language=values.language,
        task=values.task,
        beam_size=values.beam_size,
        temperatures=_numbers(values.temperatures),
        condition=values.condition,
        initial_text=values.prompt,
        word_times=values.word_timestamps,
        batch_size=min(values.batch_size, len(paths)),
        seed=values.seed,
    )
    total = None if None in seconds else round(sum(seconds))
    with counting(total, "transcribed", "seconds") as update:
        found = run.task.transcribe(
            run.model, run.params, workdir, paths, asked, lambda done: update(round(done))
        )
        for path, transcript in zip(paths, found, strict=True):
            if output is not None:
                place = output / f"{path.stem}.{values.format}"
                write_text(place, WRITERS[values.format](transcript))
                command_line.say(f"{place} is written.")
                continue
            text = WRITERS[values.format](transcript)
            if values.format == "txt":
                text = _lines(transcript, values.timestamps, several=len(paths) > 1)
            print(text, end="")
            sys.stdout.flush()
    return 0


def _numbers(given: list[str] | None) -> tuple[float, ...] | None:
    """Temperatures.

    Raises:
        ConfigError: if one is no number.
    """
    if given is None:
        return None
    try:
        return tuple(float(number) for number in given)
    except ValueError:
        raise ConfigError(
            f"--temperatures is {','.join(given)}: give numbers separated by commas."
        ) from None


def _output_folder(given: str | None, paths: list[Path], ending: str) -> Path | None:
    """The folder for files; two recordings of one name would have one file.

    Raises:
        ConfigError: names them.
    """
    if given is None:
        return None
    from transformer.checks import require_writable_folder

    folder = Path(given)
    require_writable_folder(folder, "--output")
    names = [path.stem for path in paths]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(
            f"--output: several recordings are named {twice}, and would all be written to "
            f"{folder / twice}.{ending}: write them down one by one."
        )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _lines(transcript: Any, timestamps: bool | None, *, several: bool) -> str:
    """A transcript for people: one line, or one for each segment with its times."""
    name = f"{transcript.name}\t" if several else ""
    if not timestamps:
        return f"{name}{transcript.text}\n"
    lines = [
        f"{name}[{_clock(part.start)} --> {_clock(part.end)}] {' '.join(part.text.split())}\n"
        for part in transcript.segments
    ]
    return "".join(lines)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds * 100), 6000)
    return f"{minutes:02}:{rest // 100:02}.{rest % 100:02}"


if __name__ == "__main__":
    command_line.run(main, takes_arguments=True)
