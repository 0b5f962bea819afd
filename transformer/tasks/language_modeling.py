"""Predicting the next token of a text."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from transformer.caches import cache_folder
from transformer.composition import FLAT
from transformer.data.order import Batches
from transformer.data.text.sources import text_of
from transformer.data.text.streams import Tokens, TokenWindows, require_length, tokenize
from transformer.data.tokenizers.choosing import TokenizerChoice, require_tokenizer
from transformer.data.tokenizers.protocol import TextTokenizer
from transformer.decoding.sample import write
from transformer.errors import ConfigError
from transformer.files import write_text
from transformer.limits import (
    CountOrZero,
    Length,
    PartOrAll,
    Share,
    Text,
    Token,
    TokenIds,
    Weight,
)
from transformer.ops.logits import Sampling
from transformer.tasks.parts.batching import FixedRows
from transformer.tasks.parts.losses import LogitChunks, next_token_losses
from transformer.tasks.parts.models import TextDecoder
from transformer.tasks.parts.protocol import Losses, Pace, Shown
from transformer.tasks.parts.texts import TextFiles
from transformer.tasks.parts.tokenizers import tokenizer_digest
from transformer.traced import AmountOrOff, RateOrOff
from transformer.types import Batch, Json, Params

_TEXTS, _TOKENIZER = TextFiles(), TokenizerChoice("character")
_ROWS, _CHUNKS = FixedRows(16), LogitChunks()


@dataclasses.dataclass(frozen=True, eq=False)
class TextData:
    """The two token streams of a job and the tokenizer that made them.

    Attributes:
        tokenizer: the tokenizer of both.
        train: the stream to train on.
        validation: the stream to validate on.
        context: T, the length of the training windows.
        rows: the windows of a batch.
    """

    tokenizer: TextTokenizer
    train: Tokens
    validation: Tokens
    context: int
    rows: FixedRows

    def describe(self) -> str:
        """Sizes of the two streams and of the vocabulary."""
        return (
            f"{len(self.train.array):,} tokens to train on, {len(self.validation.array):,} to "
            f"validate on, {self.tokenizer.vocab_size:,} in the vocabulary."
        )

    def save(self, workdir: Path) -> None:
        """Writes the tokenizer."""
        self.tokenizer.save(workdir)

    def dimensions(self) -> dict[str, int]:
        """The vocabulary; the model may have more entries than the tokenizer, not fewer."""
        return {"vocab_size": self.tokenizer.vocab_size}

    def fingerprint(self) -> str:
        """Changes with the tokenizer and both token streams."""
        digest = tokenizer_digest(self.tokenizer)
        return f"{digest}-{self.train.fingerprint}-{self.validation.fingerprint}"

    def pace(self) -> Pace:
        """Examples are windows."""
        windows = TokenWindows(self.train, self.context, moving=True)
        return self.rows.pace(len(windows), self.context)

    def batch_rows(self) -> tuple[int]:
        """B."""
        return (self.rows.batch_size,)

    def train_batches(self, *, seed: int, num_steps: int) -> Batches:
        """`tokens` and `labels`, both `[B, T]`, for each step."""
        windows = TokenWindows(self.train, self.context, moving=True)
        # The windows define their own order.
        return self.rows.train_batches(windows, seed=seed, num_steps=num_steps, shuffled=False)

    def validation_batches(self) -> Batches:
        """Every token of the validation stream predicted once."""
        windows = TokenWindows(self.validation, self.context, moving=False)
        return self.rows.validation_batches(windows)


@dataclasses.dataclass(frozen=True)
class LanguageModeling:
    """Left-to-right language modelling on one stream of text; its fields are `config.task`.

    Attributes:
        texts: which texts are read.
        tokenizer: the tokenizer of both texts.
        context: T, the length of the training windows.
        rows: the windows of a batch.
        label_smoothing: see `ops.losses.cross_entropy`.
        z_loss: see `ops.losses.cross_entropy`.
        chunks: how many logits are held at once.
        prompt: the beginning of the sample shown after training; empty for the first token of the
            validation text.
        sample_length: the number of tokens of that sample.
        stop: generated text ends before this string, unless a flag of `generate.py` changes it;
            empty for none.
        stop_ids: ids of tokens that also end a generated text.
        begin: the token that begins an empty prompt; None for none.
        pad: the padding token of other programs; this one does not pad.
        max_new_tokens: how many tokens `generate.py` adds, unless a flag changes it; None means
            500.
        temperature: how `generate.py` chooses tokens, unless a flag changes it; see
            `ops.logits.Sampling`, also for the next three fields.
        top_k: see `ops.logits.Sampling`.
        top_p: see `ops.logits.Sampling`.
        min_p: see `ops.logits.Sampling`.
    """

    DIMENSIONS: ClassVar[tuple[str, ...]] = ("vocab_size",)
    entry: ClassVar[str] = "__call__"
    model_kind: ClassVar[type] = TextDecoder

    texts: Annotated[TextFiles, FLAT] = _TEXTS
    tokenizer: TokenizerChoice = _TOKENIZER
    context: Length = 1024
    rows: Annotated[FixedRows, FLAT] = _ROWS
    label_smoothing: RateOrOff = 0.0
    z_loss: AmountOrOff = 0.0
    chunks: Annotated[LogitChunks, FLAT] = _CHUNKS
    prompt: Text = ""
    sample_length: CountOrZero = 500
    stop: Text = ""
    stop_ids: TokenIds = ()
    begin: Token | None = None
    pad: Token | None = None
    max_new_tokens: CountOrZero | None = None
    temperature: Weight = 0.8
    top_k: CountOrZero = 0
    top_p: PartOrAll = 1.0
    min_p: Share = 0.0

    def sampling(self) -> Sampling:
        """How tokens are chosen."""
        return Sampling(self.temperature, self.top_k, self.top_p, self.min_p)

    def load(self, workdir: Path | None) -> TextData:
        """Reads the text, makes or loads the tokenizer, and tokenizes once."""
        train, validation = self.texts.read()
        tokenizer = self.tokenizer.of_run(TextTokenizer, workdir, [train], [validation])
        data = TextData(
            tokenizer,
            tokenize(tokenizer, train, cache_folder()),
            tokenize(tokenizer, validation, cache_folder()),
            self.context,
            self.rows,
        )
        tokenizer.encode(self.prompt)  # A prompt it cannot encode stops the run now, not later.
        name = self.texts.name
        require_length(data.train, self.context, f"the training part of {name}")
        require_length(data.validation, self.context, f"the validation part of {name}")
        return data

    def stand_in(self) -> TextData:
        """Placeholder data with the right shapes, for planning."""
        tokenizer = TokenizerChoice("character").make(TextTokenizer, ["ab"])
        tokens = tokenize(tokenizer, "ab" * self.context, cache_folder())
        return TextData(tokenizer, tokens, tokens, self.context, self.rows)

    def load_validation(self, paths: Sequence[str], workdir: Path) -> TextData:
        """Another text to validate on, with the tokenizer of a run."""
        if len(paths) != 1:
            raise ConfigError("a language model is evaluated on one text file: give --path.")
        (path,) = paths
        tokenizer = self.load_tokenizer(workdir)
        tokens = tokenize(tokenizer, text_of(path), cache_folder())
        return TextData(tokenizer, tokens, tokens, self.context, self.rows)

    def load_tokenizer(self, workdir: Path) -> TextTokenizer:
        """The tokenizer of a run."""
        return require_tokenizer(TextTokenizer, workdir)

    def check_model(self, model: TextDecoder) -> None:
        """Refuses a model with fewer positions than the windows have."""
        if self.context > model.context:
            raise ConfigError(
                f"config.task.context ({self.context}) is longer than config.model.context "
                f"({model.context}): the model has no positions for it."
            )

    def example_inputs(self, model: TextDecoder) -> tuple[Int[Array, "1 T"]]:
        """One window of tokens."""
        return (jnp.zeros((1, self.context), jnp.int32),)

    def losses(
        self, model: TextDecoder, params: Params, batch: Batch, rngs: dict[str, jax.Array]
    ) -> Losses:
        """See `next_token_losses`."""
        terms = {"label_smoothing": self.label_smoothing, "z_loss": self.z_loss}
        return next_token_losses(model, params, batch, rngs, self.chunks.vocab_chunk, **terms)

    def scores(self, model: TextDecoder, params: Params, data: TextData) -> Json:
        """No scores besides the loss."""
        return {}

    def show(self, model: TextDecoder, params: Params, data: TextData, workdir: Path) -> Shown:
        """A text sample, also written to `sample.txt`."""
        prompt = self.prompt or data.tokenizer.decode(data.validation.array[:1])
        (sample,) = write(
            model,
            params,
            data.tokenizer,
            [prompt],
            max_new_tokens=self.sample_length,
            sampling=Sampling(temperature=0.8),
            seed=0,
            stop=self.stop,
            stop_ids=self.stop_ids,
            begin=self.begin,
        )
        write_text(workdir / "sample.txt", sample)
        return Shown(sample, {})
