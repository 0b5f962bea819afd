"""The bases of text encoder tasks: what all share, and what those with rows of labels share."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from transformer.data.order import Batches
from transformer.data.rows import Rows, RowSource, num_rows
from transformer.data.tokenizers.choosing import TokenizerChoice, require_tokenizer
from transformer.data.tokenizers.pieces import EncoderTokenizer
from transformer.decoding.shapes import rounded_up
from transformer.errors import ConfigError, DataError
from transformer.limits import LEAST_ROW, BatchSize, FilePath, Whole
from transformer.progress import counting
from transformer.tasks.parts import batching
from transformer.tasks.parts.labels import save_labels
from transformer.tasks.parts.models import HidesToken, RowReader, TextTagger
from transformer.tasks.parts.outputs import outputs_of
from transformer.tasks.parts.protocol import Pace
from transformer.tasks.parts.tokenizers import tokenizer_digest
from transformer.types import Data, HostBatch, Params

# The arrays of a row that an encoder reads.
INPUTS = ("tokens", "token_types", "lengths")

_TOKENIZER = TokenizerChoice("wordpiece")
# The examples behind validation rows.
Examples = TypeVar("Examples")


@runtime_checkable
class Tokenized(Protocol):
    """The data of an encoder task."""

    @property
    def tokenizer(self) -> EncoderTokenizer:
        """The tokenizer of the texts."""
        ...


@dataclasses.dataclass(frozen=True)
class EncoderTask:
    """The fields that all text encoder tasks share, and the methods that need no data.

    Attributes:
        tokenizer: word pieces as in BERT, or byte-level pieces as in RoBERTa.
        max_length: T, tokens of a row.
        batch_size: B, rows per step over all hosts and microbatches.
        validation_batch_size: rows per validation batch; None takes `batch_size`.
        special_tokens: whether special tokens written in a text count as special tokens, as in
            published models; otherwise they are ordinary text.
    """

    tokenizer: TokenizerChoice = _TOKENIZER
    max_length: Annotated[int, Whole(LEAST_ROW, 1 << 20)] = 128
    batch_size: BatchSize = 32
    validation_batch_size: BatchSize | None = None
    special_tokens: bool = False

    def make_tokenizer(self, workdir: Path | None, texts: Iterable[str]) -> EncoderTokenizer:
        """The tokenizer of a run, or one made from texts."""
        return self.configured(self.tokenizer.of_run(EncoderTokenizer, workdir, texts))

    def load_tokenizer(self, workdir: Path) -> EncoderTokenizer:
        """The tokenizer of a run."""
        return self.configured(require_tokenizer(EncoderTokenizer, workdir))

    def configured(self, tokenizer: EncoderTokenizer) -> EncoderTokenizer:
        """Configures a tokenizer for how this task reads texts, and returns it."""
        tokenizer.finds_special = self.special_tokens
        return tokenizer

    def check_model(self, model: RowReader) -> None:
        """Refuses a model with too few positions."""
        if self.max_length > model.context:
            raise ConfigError(
                f"config.task.max_length ({self.max_length}) is longer than config.model.context "
                f"({model.context}): the model has no positions for it."
            )

    def check_fit(self, model: RowReader, data: Tokenized) -> None:
        """Refuses a model that hides another token than the tokenizer's mask."""
        hidden = model.hidden_token() if isinstance(model, HidesToken) else None
        mask = data.tokenizer.mask
        if hidden is not None and hidden != mask:
            raise ConfigError(
                f"config.model.mask_token is {hidden}, and the mask of the tokenizer is token "
                f"{mask}: give --config.model.mask_token={mask}, or "
                f"--config.task.tokenizer.kind=residues."
            )

    def batch_rows(self, data: Data) -> tuple[int]:
        """B."""
        return (self.batch_size,)

    def example_inputs(self, model: RowReader) -> tuple[Int[Array, "..."], ...]:
        """One row."""
        tokens = jnp.zeros((1, self.max_length), jnp.int32)
        return tokens, tokens, jnp.ones(1, jnp.int32)


@dataclasses.dataclass(frozen=True, eq=False)
class LabelledRows(Generic[Examples]):
    """Rows to train and to validate on.

    Attributes:
        tokenizer: the tokenizer of the texts.
        labels: the names of the outputs.
        train: arrays by name: `INPUTS` and those that the task adds.
        validation: as `train`.
        examples: the examples behind the validation rows, as the task needs them for its scores.
        notes: messages about the data: what was left out or cut.
    """

    tokenizer: EncoderTokenizer
    labels: tuple[str, ...]
    train: Rows
    validation: Rows
    examples: Examples
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class LabellingTask(EncoderTask):
    """What encoder tasks share whose data are `LabelledRows`; `EncoderTask` has further fields.

    Attributes:
        train: a file to train on; empty for examples that need no file.
        validation: as `train`; empty takes a part of `train`. Needs `train`.
    """

    DIMENSIONS: ClassVar[tuple[str, ...]] = ("vocab_size", "num_outputs")
    entry: ClassVar[str] = "tag"
    model_kind: ClassVar[type] = TextTagger

    train: FilePath = ""
    validation: FilePath = ""

    def check(self) -> None:
        """Refuses values that cannot work."""
        if self.validation and not self.train:
            raise ConfigError("config.task.validation needs config.task.train beside it.")

    def save(self, data: LabelledRows, workdir: Path) -> None:
        """Writes the tokenizer and the labels."""
        data.tokenizer.save(workdir)
        save_labels(data.labels, workdir)

    def output_names(self, data: LabelledRows) -> tuple[str, ...]:
        """The labels, in the order of the model's outputs."""
        return tuple(data.labels)

    def dimensions(self, data: LabelledRows) -> dict[str, int]:
        """The vocabulary and the number of outputs."""
        return {"vocab_size": data.tokenizer.vocab_size, "num_outputs": len(data.labels)}

    def fingerprint(self, data: LabelledRows) -> str:
        """Changes with the tokenizer (first part), labels and rows."""
        digest = hashlib.sha256(json.dumps(data.labels).encode())
        for rows in (data.train, data.validation):
            for name in sorted(rows):
                digest.update(np.ascontiguousarray(rows[name]).tobytes())
        return f"{tokenizer_digest(data.tokenizer)}-{digest.hexdigest()[:32]}"

    def describe(self, data: LabelledRows) -> str:
        """Sizes, padding, and what was left out."""
        lengths = data.train["lengths"]
        padding = 1.0 - lengths.sum() / (len(lengths) * self.max_length)
        lines = [
            f"{len(lengths):,} rows of {self.max_length} tokens to train on ({padding:.1%} "
            f"padding), {num_rows(data.validation):,} to validate on, "
            f"{data.tokenizer.vocab_size:,} tokens in the vocabulary.",
            *data.notes,
        ]
        return "\n".join(lines)

    def pace(self, data: LabelledRows) -> Pace:
        """Examples are rows; tokens are counted without padding."""
        lengths = data.train["lengths"]
        return batching.pace(self, len(lengths), float(lengths.mean()))

    def train_batches(self, data: LabelledRows, *, seed: int, num_steps: int) -> Batches:
        """The arrays of the rows, and `valid`."""
        return batching.train_batches(self, RowSource(data.train), seed=seed, num_steps=num_steps)

    def validation_batches(self, data: LabelledRows) -> Batches:
        """Every validation row once."""
        return batching.validation_batches(self, RowSource(data.validation))

    def outputs(
        self, model: RowReader, params: Params, rows: Rows, *, progress: bool = True
    ) -> Float[np.ndarray, "n ..."]:
        """The outputs of `entry` for all rows, in float32.

        Only as many positions are computed as the longest row has; outputs for later positions are
        0.
        """
        width = rows["tokens"].shape[1]
        length = rounded_up(int(rows["lengths"].max(initial=1)), width)
        inputs = {
            name: array if array.ndim == 1 else array[:, :length]
            for name, array in ((name, rows[name]) for name in INPUTS)
        }
        batches = batching.validation_batches(self, RowSource(inputs))
        with counting(num_rows(rows), "read", "sentences", shown=progress) as update:
            outputs = outputs_of(model, self.entry, params, batches, encoder_inputs, update)
        if outputs.ndim == 2:
            return outputs
        return np.pad(outputs, ((0, 0), (0, width - length), (0, 0)))


def encoder_inputs(batch: HostBatch) -> list[np.ndarray]:
    """The arrays of a batch that an encoder reads."""
    return [batch[name] for name in INPUTS]


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


def too_long(length: int, context: int, what: str = "") -> str:
    """The note of a prediction about a text that was not read to its end.

    Args:
        length: the number of tokens of a row.
        context: the length of the longest row that the model reads.
        what: the thing that is too long, if it is not the text.
    """
    more = f"--max_length reads up to {context}" if length < context else "the model reads no more"
    return f"have {what}more than {length} tokens ({more})"
