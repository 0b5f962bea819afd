"""What tasks on one stream of text are composed of: the texts that they read."""

import dataclasses
from typing import Annotated

from transformer.data.text.sources import TEXTS, read_texts
from transformer.limits import FilePath, OneOf, Part


@dataclasses.dataclass(frozen=True)
class TextFiles:
    """The part of tasks on one stream of text that says which texts are read.

    Attributes:
        path: a UTF-8 text file, or a FASTA file, where each protein is a line; empty for a text
            that needs no file.
        embedded: a text that needs no file: `plays` are Shakespeare's, whole plays held out;
            `docstrings` are those of Python's standard library, whole modules held out; `purposes`
            are the pairs of the task `text_to_text`, whole packages held out; `peptides` are
            sequences of peptides, one a line, relatives held out together.
        validation_path: a text file for validation; empty takes the end of `path`.
        validation_fraction: the fraction of `path` for validation.
    """

    path: FilePath = ""
    embedded: Annotated[str, OneOf(TEXTS)] = "plays"
    validation_path: FilePath = ""
    validation_fraction: Part = 0.1

    @property
    def name(self) -> str:
        """The name of the text to train on, for messages."""
        return self.path or self.embedded

    def read(self) -> tuple[str, str]:
        """A text to train on and one to validate on; see `data.text.sources.read_texts`."""
        return read_texts(self.path, self.validation_path, self.validation_fraction, self.embedded)
