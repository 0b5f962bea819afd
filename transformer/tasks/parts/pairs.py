"""What tasks on pairs of texts are composed of: their files, and the pairs as tokens in batches."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from transformer.data.order import (
    Batches,
    Bucket,
    Planned,
    bucketed,
    make_buckets,
    packed,
)
from transformer.data.pairs.batches import PackedPairs, PairRows, padding_fraction
from transformer.data.pairs.files import (
    Pairs,
    PairTexts,
    TokenPairs,
    tokenize_pairs,
    without_empty,
)
from transformer.data.tokenizers.choosing import TokenizerChoice, require_tokenizer
from transformer.data.tokenizers.protocol import SentenceTokenizer
from transformer.errors import DataError
from transformer.limits import BatchSize, OneOf, Whole
from transformer.tasks.parts.protocol import Pace
from transformer.tasks.parts.tokenizers import tokenizer_digest

_TOKENIZER = TokenizerChoice("bpe")


@dataclasses.dataclass(frozen=True)
class PairLayout:
    """The part of tasks on pairs that says how pairs become tokens, and tokens batches.

    Attributes:
        tokenizer: the tokenizer of both sides, made from the training pairs.
        max_length: the most tokens of a sentence, its end included.
        too_long: what happens to longer sentences: `truncate` drops such pairs in training, cuts
            the sentences elsewhere, and reports how many; `refuse` stops.
        batch_tokens: the tokens of one side of a batch, padding included, over all hosts and
            microbatches.
        rows_multiple: the number of rows in a batch is a multiple of this; microbatches times
            devices must divide it.
        packing: whether several pairs share a row of `max_length` tokens, so that all batches have
            one shape; otherwise a batch holds pairs of similar length.
    """

    tokenizer: TokenizerChoice = _TOKENIZER
    max_length: Annotated[int, Whole(2, 1 << 20)] = 128
    too_long: Annotated[str, OneOf(("truncate", "refuse"))] = "truncate"
    batch_tokens: Annotated[int, Whole(1, 1 << 26)] = 4096
    rows_multiple: BatchSize = 8
    packing: bool = False

    def load(
        self,
        texts: PairTexts,
        workdir: Path | None,
        *,
        longest_target: int | None = None,
        cut_sources: bool = False,
    ) -> "PairData":
        """Makes or loads the tokenizer, and tokenizes.

        Args:
            texts: the pairs.
            workdir: see `Task.load`.
            longest_target: the most tokens of a target, its end included; None means `max_length`.
            cut_sources: whether long sources are cut in training, too: only if they then still suit
                their targets.
        """
        notes: list[str] = []
        train, validation = without_empty(texts.train, notes), texts.validation
        lines = ([*pairs.source, *pairs.target] for pairs in (train, validation))
        tokenizer = self.tokenizer.of_run(SentenceTokenizer, workdir, *lines)
        cuts = longest_target, cut_sources
        return PairData(
            self,
            tokenizer,
            self._tokenize(tokenizer, train, notes, *cuts, training=True),
            self._tokenize(tokenizer, validation, notes, *cuts),
            validation,
            texts.longer,
            tuple(notes),
            texts.groups,
            longest_target,
        )

    def load_validation(
        self,
        texts: PairTexts,
        workdir: Path,
        *,
        longest_target: int | None = None,
        cut_sources: bool = False,
    ) -> "PairData":
        """Pairs to validate on, with the tokenizer of a run; arguments as those of `load`."""
        tokenizer = self.load_tokenizer(workdir)
        notes: list[str] = []
        tokens = self._tokenize(tokenizer, texts.validation, notes, longest_target, cut_sources)
        return PairData(
            self,
            tokenizer,
            tokens,
            tokens,
            texts.validation,
            texts.longer,
            tuple(notes),
            texts.groups,
            longest_target,
        )

    def load_tokenizer(self, workdir: Path) -> SentenceTokenizer:
        """The tokenizer of a run."""
        return require_tokenizer(SentenceTokenizer, workdir)

    def example_inputs(self) -> tuple[Int[Array, "1 T"], ...]:
        """One pair of the greatest length."""
        tokens = jnp.zeros((1, self.max_length), jnp.int32)
        return tokens, tokens

    def encode_sources(
        self, tokenizer: SentenceTokenizer, lines: Sequence[str], first: int = 0
    ) -> tuple[list[np.ndarray], int]:
        """Token ids of sources, and how many were cut to `max_length`.

        Args:
            tokenizer: the run's tokenizer.
            lines: the sources.
            first: the number of lines before these, for messages.

        Raises:
            DataError: if one is too long and `too_long` is `refuse`.
        """
        encoded = tokenizer.encode_all(lines)
        room = self.max_length - 1
        long = [index for index, ids in enumerate(encoded) if len(ids) > room]
        if long and self.too_long == "refuse":
            raise DataError(
                f"line {first + long[0] + 1} has {len(encoded[long[0]])} tokens, more than the "
                f"{room} of config.task.max_length: shorten it, or allow it to be cut with "
                f"--too_long=truncate."
            )
        return [ids[:room] for ids in encoded], len(long)

    def _tokenize(
        self,
        tokenizer: SentenceTokenizer,
        pairs: Pairs,
        notes: list[str],
        longest_target: int | None,
        cut_sources: bool,
        *,
        training: bool = False,
    ) -> TokenPairs:
        return tokenize_pairs(
            tokenizer,
            pairs,
            max_length=self.max_length,
            too_long=self.too_long,
            training=training,
            notes=notes,
            max_target_length=longest_target,
            cut_sources=cut_sources,
        )


@dataclasses.dataclass(frozen=True, eq=False)
class PairData:
    """The pairs of a job: as text for scores, and as tokens for training.

    Attributes:
        layout: how they were tokenized, and what their batches are.
        tokenizer: the tokenizer of both sides.
        train: pairs to train on.
        validation: pairs to validate on.
        validation_text: the same as text.
        longer_text: pairs longer than any in training; only of made-up sequences.
        notes: what was left out or cut, as sentences.
        groups: see `PairTexts`.
        longest_target: the most tokens of a target, its end included; None means
            `layout.max_length`.
    """

    layout: PairLayout
    tokenizer: SentenceTokenizer
    train: TokenPairs
    validation: TokenPairs
    validation_text: Pairs
    longer_text: Pairs
    notes: tuple[str, ...]
    groups: tuple[str, ...] = ()
    longest_target: int | None = None

    def describe(self) -> str:
        """Sizes, shapes of batches, padding, and what was left out."""
        _, order = self._training(seed=0, num_steps=1)
        batches = order.batches_per_epoch
        shapes = ", ".join(f"{bucket.rows}x{bucket.length}" for bucket in batches)
        padding = padding_fraction(self.train, batches, self.longest_target)
        lines = [
            f"{len(self.train.source):,} pairs to train on, {len(self.validation.source):,} to "
            f"validate on, {self.tokenizer.vocab_size:,} tokens in the vocabulary.",
            f"Batches have {len(batches)} shapes, each compiled once ({shapes}); "
            f"{padding:.1%} of their tokens are padding.",
            *self.notes,
        ]
        return "\n".join(lines)

    def save(self, workdir: Path) -> None:
        """Writes the tokenizer."""
        self.tokenizer.save(workdir)

    def dimensions(self) -> dict[str, int]:
        """The vocabulary; the model may have more entries than the tokenizer, not fewer."""
        return {"vocab_size": self.tokenizer.vocab_size}

    def fingerprint(self) -> str:
        """Changes with the tokenizer (first part) and all pairs."""
        sides = [*self.train, *self.validation]
        contents = b"".join(hashlib.sha256(side.tokens.tobytes()).digest() for side in sides)
        digest = tokenizer_digest(self.tokenizer)
        return f"{digest}-{hashlib.sha256(contents).hexdigest()[:32]}"

    def pace(self) -> Pace:
        """Tokens are those of the target, without padding."""
        steps = self._training(seed=0, num_steps=1)[1].steps_per_epoch
        pairs = len(self.train.target)
        return Pace(pairs / steps, len(self.train.target.tokens) / steps, pairs)

    def batch_rows(self) -> tuple[int]:
        """`rows_multiple`, which divides all numbers of rows."""
        return (self.layout.rows_multiple,)

    def train_batches(self, *, seed: int, num_steps: int) -> Batches:
        """The arrays of `data.pairs.batches.lay_out` for each step."""
        return Batches(*self._training(seed=seed, num_steps=num_steps))

    def validation_batches(self) -> Batches:
        """Every validation pair once."""
        rows = self._bucketed(self.validation)
        return Batches(rows, bucketed(rows.lengths, rows.buckets))

    def _bucketed(self, pairs: TokenPairs) -> PairRows:
        buckets = make_buckets(
            pairs.lengths,
            batch_tokens=self.layout.batch_tokens,
            longest=self.layout.max_length,
            rows_multiple=self.layout.rows_multiple,
        )
        return PairRows(pairs, buckets, self.longest_target)

    def _training(self, *, seed: int, num_steps: int) -> tuple[PairRows | PackedPairs, Planned]:
        if not self.layout.packing:
            pairs = self._bucketed(self.train)
            return pairs, bucketed(pairs.lengths, pairs.buckets, seed, num_steps)
        length, multiple = self.layout.max_length, self.layout.rows_multiple
        number = self.layout.batch_tokens // length // multiple
        bucket = Bucket(max(1, number) * multiple, length)
        rows = PackedPairs(self.train, length, seed, self.longest_target)
        return rows, packed(len(rows), bucket, seed, num_steps)
