"""The recordings of tasks that make sound: what is read, and what was left out."""

from collections.abc import Sequence
from typing import Annotated, NamedTuple

from transformer.data.audio.sets import read_evaluation_recordings
from transformer.data.audio.transcribed import Recordings
from transformer.data.embedded.few_voices import NAMES, read_by
from transformer.errors import ConfigError, DataError
from transformer.limits import OneOf, Several
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


def require_voices(path: str, voices: Sequence[str]) -> None:
    """Refuses to have neither recordings nor voices, or a voice twice.

    Raises:
        ConfigError: naming the field.
    """
    if not path and (not voices or len(set(voices)) < len(voices)):
        raise ConfigError(
            f"config.task.voices is {tuple(voices)}: without config.task.train give at least one "
            f"voice, and none twice."
        )


def read_sounds(
    path: str, voices: Sequence[str], fraction: float, rate: int, max_seconds: float
) -> Sounds:
    """The recordings of a path, with those that it has for validation, or else the last ones.

    Args:
        path: see `data.audio.sets.read_recordings`; empty for digits that voices read.
        voices: see `data.embedded.few_voices`.
        fraction: the fraction for validation, if the path has no own part.
        rate: the wanted samples a second.
        max_seconds: longer recordings are left out.

    Raises:
        DataError: if they cannot be used.
    """
    if not path:
        return Sounds(*read_by(voices, rate))
    notes: list[str] = []
    train, validation = read_parts(path, rate, max_seconds, notes)
    _require_samples(train, path)
    if validation is None:
        train, validation = last_held_out(train, fraction, path)
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
