"""What tasks on one stream of text are composed of: the texts that they read."""

import dataclasses
from typing import Annotated

from transformer.composition import FLAT
from transformer.data.text.sources import TEXTS, read_texts
from transformer.limits import OneOf
from transformer.tasks.parts.training_files import TrainingPath

_FILES = TrainingPath()


@dataclasses.dataclass(frozen=True)
class TextFiles:
    """The part of tasks on one stream of text that says which texts are read.

    Attributes:
        files: the files, and what is held out of them.
        path: a UTF-8 text file, or a FASTA file, where each protein is a line; empty for a text
            that needs no file.
        embedded: a text that needs no file: `plays` are Shakespeare's, whole plays held out;
            `docstrings` are those of Python's standard library, whole modules held out; `purposes`
            are the pairs of the task `text_to_text`, whole packages held out; `peptides` are
            sequences of peptides, one a line, relatives held out together.
        validation_path: a text file for validation; empty takes the end of `path`. Needs `path`.
    """

    files: Annotated[TrainingPath, FLAT] = _FILES
    embedded: Annotated[str, OneOf(TEXTS)] = "plays"

    @property
    def name(self) -> str:
        """The name of the text to train on, for messages."""
        return self.files.path or self.embedded

    def read(self) -> tuple[str, str]:
        """A text to train on and one to validate on; see `data.text.sources.read_texts`."""
        files = self.files
        return read_texts(
            files.path, files.validation_path, files.validation_fraction, self.embedded
        )
