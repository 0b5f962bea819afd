"""The data of encoder tasks with labels: labelled rows."""

import dataclasses
import json
from pathlib import Path
from typing import Generic, TypeVar

from transformer.data.order import Batches
from transformer.data.rows import Rows, RowSource, num_rows, rows_digest
from transformer.data.tokenizers.pieces import EncoderTokenizer
from transformer.tasks.parts.encoder import EncoderInput, require_same_mask
from transformer.tasks.parts.labels import save_labels
from transformer.tasks.parts.models import RowReader
from transformer.tasks.parts.protocol import Pace
from transformer.tasks.parts.tokenizers import tokenizer_digest

# The examples behind validation rows.
Examples = TypeVar("Examples")


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
        digest = rows_digest((self.train, self.validation), json.dumps(self.labels).encode())
        return f"{tokenizer_digest(self.tokenizer)}-{digest}"

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
