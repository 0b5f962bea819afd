"""The base of text encoder tasks: a tokenizer, rows of one length, outputs for all rows."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from transformer.data.order import Batches, Epochs, InOrder
from transformer.data.rows import Rows, RowSource, num_rows
from transformer.data.tokenizers.choosing import TokenizerChoice, load_tokenizer, require_tokenizer
from transformer.data.tokenizers.pieces import EncoderTokenizer
from transformer.decoding.shapes import rounded_up
from transformer.errors import ConfigError
from transformer.limits import BatchSize, Whole
from transformer.progress import counting
from transformer.tasks.parts.labels import save_labels
from transformer.tasks.parts.models import TextTagger
from transformer.tasks.parts.protocol import Pace, require_tokenizer_of, tokenizer_digest

# The arrays of a row that an encoder reads.
INPUTS = ("tokens", "token_types", "lengths")

_TOKENIZER = TokenizerChoice("wordpiece")


class EncoderData(NamedTuple):
    """Rows to train and to validate on.

    Attributes:
        tokenizer: the tokenizer of the texts.
        labels: names of the outputs, if they have names.
        train: arrays by name: `INPUTS` and those that the task adds.
        validation: as `train`.
        examples: the examples behind the validation rows, as the task needs them for its scores.
        notes: messages about the data: what was left out or cut.
    """

    tokenizer: EncoderTokenizer
    labels: tuple[str, ...]
    train: Rows
    validation: Rows
    examples: Any
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class EncoderTask:
    """The fields and methods that text encoder tasks share.

    Attributes:
        tokenizer: word pieces as in BERT, or byte-level pieces as in RoBERTa.
        max_length: T, tokens of a row.
        batch_size: B, rows per step over all hosts and microbatches.
        validation_batch_size: rows per validation batch; None takes `batch_size`.
        special_tokens: whether special tokens written in a text count as special tokens, as in
            published models; otherwise they are ordinary text.
    """

    DIMENSIONS: ClassVar[tuple[str, ...]] = ("vocab_size", "num_outputs")
    entry: ClassVar[str] = "tag"
    model_kind: ClassVar[type] = TextTagger

    tokenizer: TokenizerChoice = _TOKENIZER
    max_length: Annotated[int, Whole(4, 1 << 20)] = 128
    batch_size: BatchSize = 32
    validation_batch_size: BatchSize | None = None
    special_tokens: bool = False

    # ------------------------------------------------------------------- tokenizer, labels

    def make_tokenizer(
        self, workdir: Path | None, texts: Callable[[], Iterable[str]]
    ) -> EncoderTokenizer:
        """The tokenizer of a run, or one made from texts."""
        tokenizer = None if workdir is None else load_tokenizer(EncoderTokenizer, workdir)
        if tokenizer is None:
            tokenizer = self.tokenizer.make(EncoderTokenizer, texts())
        self.set_reading(tokenizer)
        return tokenizer

    def set_reading(self, tokenizer: EncoderTokenizer) -> None:
        """Configures a tokenizer for how this task reads texts."""
        tokenizer.finds_special = self.special_tokens

    def load_tokenizer(self, workdir: Path) -> EncoderTokenizer:
        """The tokenizer of a run.

        Raises:
            WorkdirError: if there is none.
        """
        tokenizer = require_tokenizer(EncoderTokenizer, workdir)
        self.set_reading(tokenizer)
        return tokenizer

    def save(self, data: EncoderData, workdir: Path) -> None:
        """Writes the tokenizer and the labels."""
        data.tokenizer.save(workdir)
        save_labels(data.labels, workdir)

    def output_names(self, data: EncoderData) -> tuple[str, ...]:
        """The labels, in the order of the model's outputs."""
        return tuple(data.labels)

    def check_run(self, workdir: Path, fingerprint: str) -> None:
        """Refuses a tokenizer that is not the checkpoint's."""
        require_tokenizer_of(fingerprint, self.load_tokenizer(workdir).identity(), workdir)

    # ---------------------------------------------------------------------------- protocol

    def dimensions(self, data: EncoderData) -> dict[str, int]:
        """The vocabulary and the number of outputs."""
        return {"vocab_size": data.tokenizer.vocab_size, "num_outputs": len(data.labels)}

    def fingerprint(self, data: EncoderData) -> str:
        """Changes with the tokenizer (first part), labels and rows."""
        digest = hashlib.sha256(json.dumps(data.labels).encode())
        for rows in (data.train, data.validation):
            for name in sorted(rows):
                digest.update(np.ascontiguousarray(rows[name]).tobytes())
        return f"{tokenizer_digest(data.tokenizer.identity())}-{digest.hexdigest()[:32]}"

    def describe(self, data: EncoderData) -> str:
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

    def check_model(self, model: Any) -> None:
        """Refuses a model with too few positions."""
        if self.max_length > model.context:
            raise ConfigError(
                f"config.task.max_length ({self.max_length}) is longer than config.model.context "
                f"({model.context}): the model has no positions for it."
            )

    def pace(self, data: EncoderData) -> Pace:
        """Examples are rows; tokens are counted without padding."""
        size = float(self.batch_size)
        lengths = data.train["lengths"]
        return Pace(size, size * float(lengths.mean()), len(lengths))

    def batch_rows(self, data: Any) -> tuple[int]:
        """B."""
        return (self.batch_size,)

    def train_batches(self, data: EncoderData, *, seed: int, num_steps: int) -> Batches:
        """The arrays of the rows, and `valid`."""
        order = Epochs(num_rows(data.train), self.batch_size, seed, num_steps)
        return Batches(RowSource(data.train), order)

    def validation_batches(self, data: EncoderData) -> Batches:
        """Every validation row once."""
        return self._in_order(data.validation)

    def _in_order(self, rows: Rows) -> Batches:
        size = self.validation_batch_size or self.batch_size
        return Batches(RowSource(rows), InOrder(num_rows(rows), size))

    def example_inputs(self, model: Any) -> tuple:
        """One row."""
        tokens = jnp.zeros((1, self.max_length), jnp.int32)
        return tokens, tokens, jnp.ones(1, jnp.int32)

    # ----------------------------------------------------------------------------- outputs

    def outputs(self, model: Any, params: Any, rows: Rows, *, progress: bool = True) -> np.ndarray:
        """The outputs of `entry` for all rows, float32 `[n, ...]`.

        Only as many positions are computed as the longest row has; outputs for later positions are
        0.
        """
        width = rows["tokens"].shape[1]
        length = rounded_up(int(rows["lengths"].max(initial=1)), width)
        inputs = {
            name: array if array.ndim == 1 else array[:, :length]
            for name, array in ((name, rows[name]) for name in INPUTS)
        }
        batches, found = self._in_order(inputs), []
        with counting(num_rows(rows), "read", "sentences", shown=progress) as update:
            for step in range(len(batches)):
                batch = batches[step]
                output = apply_to_rows(model, self.entry, params, *(batch[name] for name in INPUTS))
                found.append(np.asarray(output)[batch["valid"] == 1])
                update(sum(map(len, found)))
        outputs = np.concatenate(found)
        if outputs.ndim == 2:
            return outputs
        return np.pad(outputs, ((0, 0), (0, width - length), (0, 0)))


@functools.partial(jax.jit, static_argnums=(0, 1))
def apply_to_rows(model: Any, method: str, params: Any, *inputs: Any) -> Any:
    """Calls a method of an encoder; it is compiled once for each shape."""
    return model.apply({"params": params}, *inputs, method=method)


def too_long(length: int, context: int, what: str = "") -> str:
    """The note of a prediction about a text that was not read to its end.

    Args:
        length: the number of tokens of a row.
        context: the length of the longest row that the model reads.
        what: the thing that is too long, if it is not the text.
    """
    more = f"--max_length reads up to {context}" if length < context else "the model reads no more"
    return f"have {what}more than {length} tokens ({more})"
