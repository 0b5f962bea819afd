"""Recordings written down by the models of the task `transcription`."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar, cast, runtime_checkable

from transformer.data.audio.prompts import Prompt, require_marks
from transformer.data.audio.reading import OpenRecording
from transformer.data.audio.transcripts import Transcript
from transformer.data.audio.windows import Windows
from transformer.data.tokenizers.protocol import SentenceTokenizer
from transformer.decoding.dictation import Dictation
from transformer.decoding.dictation import Listener as WindowListener
from transformer.decoding.recognize import Recognition
from transformer.decoding.word_times import require_heads
from transformer.errors import ConfigError
from transformer.fields import require_allowed
from transformer.nn.encoder_decoder import AnyEncoderDecoder
from transformer.tasks.parts.listening import Listener, require_samples
from transformer.tasks.parts.models import Model
from transformer.tasks.parts.recording_files import RecordingFiles
from transformer.tasks.parts.speech import SpeechReader
from transformer.tasks.parts.transcribing import Asked
from transformer.types import Params

Section = TypeVar("Section", Prompt, Windows)


@runtime_checkable
class SpeechWriting(Protocol):
    """The fields of a task that are needed.

    Attributes:
        recordings: how recordings are heard, and the longest that is read as a whole.
        windows: how windows are written.
    """

    recordings: RecordingFiles
    windows: Windows

    def recognition(self, tokenizer: SentenceTokenizer) -> Recognition:
        """How texts are found."""
        ...


def write_windows(
    task: SpeechWriting,
    model: Model,
    params: Params,
    tokenizer: SentenceTokenizer,
    recordings: Sequence[Path],
    asked: Asked,
    on_progress: Callable[[float], None],
) -> Iterator[Transcript]:
    """Recordings of any length, window by window; see `Transcribes`.

    Raises:
        ConfigError: if the model does not know the language, or has no choice.
        DataError: if a recording cannot be read.
    """
    marks = require_marks(tokenizer)
    prompt = _changed(task.recordings.prompt, "prompt", language=asked.language, task=asked.task)
    if prompt.language and prompt.multilingual:
        marks.language(prompt.language)
    windows = _changed(
        task.windows,
        "windows",
        timestamps=asked.timestamps,
        beam_size=asked.beam_size,
        temperatures=asked.temperatures,
        condition=asked.condition,
        initial_text=asked.initial_text,
        word_times=asked.word_times,
    )
    if windows.word_times:
        listener = cast("WindowListener", model)
        require_heads(windows.alignment_heads, listener.num_decoder_layers, listener.num_heads)
    dictation = Dictation(
        cast("AnyEncoderDecoder", model),
        params,
        tokenizer,
        marks,
        task.recordings.features,
        prompt,
        windows,
        asked.batch_size,
        asked.seed,
    )
    rate = task.recordings.features.sampling_rate
    openers = ((str(path), functools.partial(OpenRecording, path, rate)) for path in recordings)
    return dictation.transcripts(openers, on_progress)


def _changed(section: Section, name: str, **asked: object) -> Section:
    """A section of the task with what is asked for; None keeps a field.

    Raises:
        ConfigError: if a value is not allowed.
    """
    given = {field: value for field, value in asked.items() if value is not None}
    changed = dataclasses.replace(section, **given)
    require_allowed(f"task.{name}", changed)
    return changed


def write_pieces(
    task: SpeechWriting,
    model: Model,
    params: Params,
    tokenizer: SentenceTokenizer,
    recordings: Sequence[Path],
    asked: Asked,
    on_progress: Callable[[float], None],
) -> Iterator[Transcript]:
    """Recordings of any length, cut where it is quiet, a segment for each piece.

    Raises:
        ConfigError: if something is asked for that only models like Whisper do, or the model hears
            no samples.
        DataError: if a recording cannot be read.
    """
    of_windows = {
        "language": asked.language,
        "task": asked.task,
        "temperatures": asked.temperatures,
        "condition": asked.condition,
        "prompt": asked.initial_text,
        "word_timestamps": asked.word_times,
    }
    for name, value in of_windows.items():
        if value not in (None, False):
            raise ConfigError(
                f"--{name} is for models that read windows, such as an imported Whisper: leave it "
                f"out."
            )
    how = task.recognition(tokenizer)
    if asked.beam_size is not None:
        how = dataclasses.replace(how, size=asked.beam_size)
    listener = Listener(
        cast("SpeechReader", model),
        params,
        tokenizer,
        task.recordings.features,
        how,
        task.recordings.max_seconds,
        asked.batch_size,
    )
    require_samples(listener.model, task.recordings.features)
    done = 0.0
    for path in recordings:
        before = done
        found = listener.transcript(path, lambda seconds: on_progress(before + seconds))  # noqa: B023
        done += found.seconds
        yield found
