"""What encoder tasks with labels are composed of: the files that they read, and labelled rows."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from transformer.data.order import Batches
from transformer.data.rows import Rows, RowSource, num_rows
from transformer.data.tokenizers.pieces import EncoderTokenizer
from transformer.errors import ConfigError, DataError
from transformer.limits import FilePath
from transformer.tasks.parts.encoder import EncoderInput, require_same_mask
from transformer.tasks.parts.labels import save_labels
from transformer.tasks.parts.models import RowReader
from transformer.tasks.parts.protocol import Pace
from transformer.tasks.parts.tokenizers import tokenizer_digest

# The examples behind validation rows.
Examples = TypeVar("Examples")


@dataclasses.dataclass(frozen=True)
class LabelledFiles:
    """The part of encoder tasks with labels that says which files are read.

    Attributes:
        train: a file to train on; empty for examples that need no file.
        validation: as `train`; empty takes a part of `train`. Needs `train`.
    """

    train: FilePath = ""
    validation: FilePath = ""

    def check(self) -> None:
        """Refuses values that cannot work."""
        if self.validation and not self.train:
            raise ConfigError("config.task.validation needs config.task.train beside it.")


@dataclasses.dataclass(frozen=True, eq=False)
class LabelledRows(Generic[Examples]):
    """Rows to train and to validate on.

    Attributes:
        inputs: how the rows were made.
        tokenizer: the tokenizer of the texts.
        labels: the names of the outputs.
        train: arrays by name: `INPUTS` and those that the task adds.
        validation: as `train`.
        examples: the examples behind the validation rows, as the task needs them for its scores.
        notes: messages about the data: what was left out or cut.
    """

    inputs: EncoderInput
    tokenizer: EncoderTokenizer
    labels: tuple[str, ...]
    train: Rows
    validation: Rows
    examples: Examples
    notes: tuple[str, ...]

    def describe(self) -> str:
        """Sizes, padding, and what was left out."""
        lengths, max_length = self.train["lengths"], self.inputs.max_length
        padding = 1.0 - lengths.sum() / (len(lengths) * max_length)
        lines = [
            f"{len(lengths):,} rows of {max_length} tokens to train on ({padding:.1%} "
            f"padding), {num_rows(self.validation):,} to validate on, "
            f"{self.tokenizer.vocab_size:,} tokens in the vocabulary.",
            *self.notes,
        ]
        return "\n".join(lines)

    def save(self, workdir: Path) -> None:
        """Writes the tokenizer and the labels."""
        self.tokenizer.save(workdir)
        save_labels(self.labels, workdir)

    def output_names(self) -> tuple[str, ...]:
        """The labels, in the order of the model's outputs."""
        return tuple(self.labels)

    def check_fit(self, model: RowReader) -> None:
        """Refuses a model that hides another token than the tokenizer's mask."""
        require_same_mask(model, self.tokenizer)

    def dimensions(self) -> dict[str, int]:
        """The vocabulary and the number of outputs."""
        return {"vocab_size": self.tokenizer.vocab_size, "num_outputs": len(self.labels)}

    def fingerprint(self) -> str:
        """Changes with the tokenizer (first part), labels and rows."""
        digest = hashlib.sha256(json.dumps(self.labels).encode())
        for rows in (self.train, self.validation):
            for name in sorted(rows):
                digest.update(np.ascontiguousarray(rows[name]).tobytes())
        return f"{tokenizer_digest(self.tokenizer)}-{digest.hexdigest()[:32]}"

    def pace(self) -> Pace:
        """Examples are rows; tokens are counted without padding."""
        lengths = self.train["lengths"]
        return self.inputs.rows.pace(len(lengths), float(lengths.mean()))

    def batch_rows(self) -> tuple[int]:
        """B."""
        return (self.inputs.rows.batch_size,)

    def train_batches(self, *, seed: int, num_steps: int) -> Batches:
        """The arrays of the rows, and `valid`."""
        rows = self.inputs.rows
        return rows.train_batches(RowSource(self.train), seed=seed, num_steps=num_steps)

    def validation_batches(self) -> Batches:
        """Every validation row once."""
        return self.inputs.rows.validation_batches(RowSource(self.validation))


def num_held_out(total: int, fraction: float, path: str, what: str) -> int:
    """How many examples of a file to train on are kept for validation.

    Args:
        total: the number of examples.
        fraction: the fraction of them for validation.
        path: the file.
        what: the word for examples, in the plural.

    Raises:
        DataError: if there are too few.
    """
    count = round(total * fraction)
    if not 0 < count < total:
        raise DataError(
            f"{path} has {total} {what}: too few to keep some for validation. Give more, or "
            f"config.task.validation."
        )
    return count
