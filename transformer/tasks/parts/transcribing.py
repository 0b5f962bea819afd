"""What a task must do so that `scripts/transcribe.py` writes recordings down with its models."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from transformer.data.audio.transcripts import Transcript
from transformer.tasks.parts.models import Model
from transformer.types import Params


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a user asks for; None is as the run says.

    Attributes:
        timestamps: whether transcripts have times.
        language: the language that is spoken, as a code such as `en`.
        task: `transcribe` or `translate`.
        beam_size: hypotheses that are kept; 1 takes the most probable token.
        temperatures: tried one after another while a text seems wrong.
        condition: whether each part of a recording is told the text before it.
        initial_text: what the first part is told.
        word_times: whether words get times.
        batch_size: how many recordings are written down at once.
        seed: of the random numbers.
    """

    timestamps: bool | None = None
    language: str | None = None
    task: str | None = None
    beam_size: int | None = None
    temperatures: tuple[float, ...] | None = None
    condition: bool | None = None
    initial_text: str | None = None
    word_times: bool | None = None
    batch_size: int = 8
    seed: int = 0


@runtime_checkable
class Transcribes(Protocol):
    """A task whose models write recordings down."""

    def transcribe(
        self,
        model: Model,
        params: Params,
        workdir: Path,
        recordings: Sequence[Path],
        asked: Asked,
        on_progress: Callable[[float], None],
    ) -> Iterator[Transcript]:
        """The transcript of each recording, in their order.

        Args:
            model: the model.
            params: its parameters.
            workdir: the folder of the run.
            recordings: the files.
            asked: what is wanted.
            on_progress: called with the seconds of recordings that are done.

        Raises:
            DataError: if a file cannot be read.
            ConfigError: if something that is asked for cannot be done.
        """
        ...
