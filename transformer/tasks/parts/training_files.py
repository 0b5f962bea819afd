"""The files that tasks train and validate on."""

import dataclasses

from transformer.errors import ConfigError, DataError
from transformer.limits import FilePath, Part


@dataclasses.dataclass(frozen=True)
class TrainingFiles:
    """The part of tasks on files of examples that says which files are read.

    Attributes:
        train: files to train on; empty for examples that need no file.
        validation: as `train`; empty takes a part of the training examples. Needs `train`.
        validation_fraction: the fraction of the training examples for validation, if there are no
            other validation examples.
    """

    train: FilePath = ""
    validation: FilePath = ""
    validation_fraction: Part = 0.1

    def check(self) -> None:
        """Refuses values that cannot work."""
        if self.validation and not self.train:
            raise ConfigError("config.task.validation needs config.task.train beside it.")

    def num_held_out(self, total: int, what: str) -> int:
        """How many examples of a file to train on are kept for validation, at least one.

        Args:
            total: the number of examples.
            what: the word for examples, in the plural.

        Raises:
            DataError: if none would be left to train on.
        """
        count = max(1, round(total * self.validation_fraction))
        if count >= total:
            raise DataError(
                f"{self.train} has too few {what} ({total}) to keep some for validation. Give "
                f"more, or config.task.validation."
            )
        return count


@dataclasses.dataclass(frozen=True)
class TrainingPath:
    """The part of tasks on one file or folder that says which one, and what is held out of it.

    Attributes:
        path: what to train on; empty for something that needs no file.
        validation_path: the same for validation; empty takes a part of `path`. Needs `path`.
        validation_fraction: the fraction of `path` for validation.
    """

    path: FilePath = ""
    validation_path: FilePath = ""
    validation_fraction: Part = 0.1

    def check(self) -> None:
        """Refuses values that cannot work."""
        if self.validation_path and not self.path:
            raise ConfigError("config.task.validation_path needs config.task.path beside it.")
