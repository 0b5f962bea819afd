"""The recordings of tasks that make sound: what is read, and what was left out."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, NamedTuple

from transformer.data.audio.sets import read_evaluation_recordings
from transformer.data.audio.transcribed import Recordings
from transformer.data.embedded.few_voices import NAMES, read_by
from transformer.errors import ConfigError, DataError
from transformer.limits import FilePath, OneOf, Part, Positive, Several
from transformer.tasks.parts.recordings import last_held_out, read_parts

# Voices of eSpeak NG, no more than there are.
Voices = Annotated[tuple[Annotated[str, OneOf(NAMES)], ...], Several(len(NAMES))]
VOICES = ("adam", "linda", "john", "steph")


class Sounds(NamedTuple):
    """Recordings, as samples.

    Attributes:
        train: what to train on.
        validation: what to validate on.
        notes: what was left out, as sentences.
    """

    train: Recordings
    validation: Recordings
    notes: tuple[str, ...] = ()

    def described(self, rate: int) -> str:
        """How much there is at so many samples a second, and what was left out."""
        minutes = [part.lengths.sum() / rate / 60.0 for part in (self.train, self.validation)]
        lines = [
            f"{len(self.train):,} recordings ({minutes[0]:.1f} minutes) to train on, "
            f"{len(self.validation):,} ({minutes[1]:.1f}) to validate on.",
            *self.notes,
        ]
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class SoundFiles:
    """The part of tasks that make sound that says which recordings are read.

    Attributes:
        train: recordings: a folder, a manifest, a `.npz` file; see `data.audio.layouts`. Empty for
            strings of digits that synthetic voices read.
        voices: these voices; see `data.embedded.few_voices`.
        validation_fraction: the fraction of `train` for validation, if it has no own part.
        max_seconds: longer recordings are left out.
    """

    train: FilePath = ""
    voices: Voices = VOICES
    validation_fraction: Part = 0.1
    max_seconds: Positive = 30.0

    def check(self) -> None:
        """Refuses to have neither recordings nor voices, or a voice twice."""
        if not self.train and (not self.voices or len(set(self.voices)) < len(self.voices)):
            raise ConfigError(
                f"config.task.voices is {tuple(self.voices)}: without config.task.train give at "
                f"least one voice, and none twice."
            )

    def read(self, rate: int) -> Sounds:
        """The recordings, with those of `train` for validation, or else the last ones.

        Args:
            rate: the wanted samples a second.

        Raises:
            DataError: if they cannot be used.
        """
        if not self.train:
            return Sounds(*read_by(self.voices, rate))
        notes: list[str] = []
        train, validation = read_parts(self.train, rate, self.max_seconds, notes)
        _require_samples(train, self.train)
        if validation is None:
            train, validation = last_held_out(train, self.validation_fraction, self.train)
        return Sounds(train, validation, tuple(notes))


def read_other_sounds(paths: Sequence[str], rate: int) -> Sounds:
    """Other recordings, to evaluate a trained model on.

    Args:
        paths: one path.
        rate: the wanted samples a second.

    Raises:
        ConfigError: if it is not one path.
        DataError: if they cannot be used.
    """
    if len(paths) != 1:
        raise ConfigError("recordings are evaluated from one folder or file: give --path.")
    recordings = read_evaluation_recordings(paths[0], rate)
    _require_samples(recordings, paths[0])
    return Sounds(recordings, recordings)


def _require_samples(recordings: Recordings, path: str) -> None:
    if recordings.num_features is not None:
        raise DataError(
            f"{path} has frames of {recordings.num_features} numbers, of which no sound can be "
            f"made: give recordings."
        )
