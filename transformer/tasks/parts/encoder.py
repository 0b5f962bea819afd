"""What text encoder tasks are composed of: how texts become rows, and outputs for all rows."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from transformer.composition import FLAT
from transformer.data.rows import Rows, RowSource, num_rows
from transformer.data.tokenizers.choosing import TokenizerChoice, require_tokenizer
from transformer.data.tokenizers.pieces import EncoderTokenizer
from transformer.decoding.shapes import rounded_up
from transformer.errors import ConfigError
from transformer.limits import LEAST_ROW, Whole
from transformer.progress import counting
from transformer.tasks.parts.batching import FixedRows
from transformer.tasks.parts.models import HidesToken, RowReader
from transformer.tasks.parts.outputs import outputs_of
from transformer.types import HostBatch, Params

# The arrays of a row that an encoder reads.
INPUTS = ("tokens", "token_types", "lengths")

_TOKENIZER, _ROWS = TokenizerChoice("wordpiece"), FixedRows()


@dataclasses.dataclass(frozen=True)
class EncoderInput:
    """The part of text encoder tasks that says how texts become rows of tokens.

    Attributes:
        tokenizer: word pieces as in BERT, or byte-level pieces as in RoBERTa.
        max_length: T, tokens of a row.
        special_tokens: whether special tokens written in a text count as special tokens, as in
            published models; otherwise they are ordinary text.
        rows: the rows of a batch.
    """

    tokenizer: TokenizerChoice = _TOKENIZER
    max_length: Annotated[int, Whole(LEAST_ROW, 1 << 20)] = 128
    special_tokens: bool = False
    rows: Annotated[FixedRows, FLAT] = _ROWS

    def make_tokenizer(self, workdir: Path | None, texts: Iterable[str]) -> EncoderTokenizer:
        """The tokenizer of a run, or one made from texts."""
        return self._configured(self.tokenizer.of_run(EncoderTokenizer, workdir, texts))

    def load_tokenizer(self, workdir: Path) -> EncoderTokenizer:
        """The tokenizer of a run."""
        return self._configured(require_tokenizer(EncoderTokenizer, workdir))

    def _configured(self, tokenizer: EncoderTokenizer) -> EncoderTokenizer:
        tokenizer.finds_special = self.special_tokens
        return tokenizer

    def check_model(self, model: RowReader) -> None:
        """Refuses a model with too few positions."""
        if self.max_length > model.context:
            raise ConfigError(
                f"config.task.max_length ({self.max_length}) is longer than config.model.context "
                f"({model.context}): the model has no positions for it."
            )

    def example_inputs(self, model: RowReader) -> tuple[Int[Array, "..."], ...]:
        """One row."""
        tokens = jnp.zeros((1, self.max_length), jnp.int32)
        return tokens, tokens, jnp.ones(1, jnp.int32)

    def outputs(
        self, model: RowReader, params: Params, rows: Rows, method: str, *, progress: bool = True
    ) -> Float[np.ndarray, "n ..."]:
        """The outputs of a method of the model for all rows, in float32.

        Only as many positions are computed as the longest row has; outputs for later positions are
        0.
        """
        width = rows["tokens"].shape[1]
        length = rounded_up(int(rows["lengths"].max(initial=1)), width)
        inputs = {
            name: array if array.ndim == 1 else array[:, :length]
            for name, array in ((name, rows[name]) for name in INPUTS)
        }
        batches = self.rows.validation_batches(RowSource(inputs))
        with counting(num_rows(rows), "read", "sentences", shown=progress) as update:
            outputs = outputs_of(model, method, params, batches, encoder_inputs, update)
        if outputs.ndim == 2:
            return outputs
        return np.pad(outputs, ((0, 0), (0, width - length), (0, 0)))


def encoder_inputs(batch: HostBatch) -> list[np.ndarray]:
    """The arrays of a batch that an encoder reads."""
    return [batch[name] for name in INPUTS]


def require_same_mask(model: RowReader, tokenizer: EncoderTokenizer) -> None:
    """Refuses a model that hides another token than the tokenizer's mask."""
    hidden = model.hidden_token() if isinstance(model, HidesToken) else None
    mask = tokenizer.mask
    if hidden is not None and hidden != mask:
        raise ConfigError(
            f"config.model.mask_token is {hidden}, and the mask of the tokenizer is token "
            f"{mask}: give --config.model.mask_token={mask}, or "
            f"--config.task.tokenizer.kind=residues."
        )


def too_long(length: int, context: int, what: str = "") -> str:
    """The note of a prediction about a text that was not read to its end.

    Args:
        length: the number of tokens of a row.
        context: the length of the longest row that the model reads.
        what: the thing that is too long, if it is not the text.
    """
    more = f"--max_length reads up to {context}" if length < context else "the model reads no more"
    return f"have {what}more than {length} tokens ({more})"
