"""The base of tasks on pairs of texts: the model reads one and writes the other."""

import abc
import dataclasses
import hashlib
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import jax
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
    PairData,
    Pairs,
    PairTexts,
    TokenPairs,
    tokenize_pairs,
    without_empty,
)
from transformer.data.tokenizers.choosing import TokenizerChoice, require_tokenizer
from transformer.data.tokenizers.protocol import SentenceTokenizer
from transformer.decoding.translate import Beam, Output, best_texts, translate
from transformer.errors import ConfigError, DataError
from transformer.files import write_text
from transformer.limits import BatchSize, CountOrZero, FilePath, OneOf, PartOrNone, Whole
from transformer.ops.search_rules import USUAL, Penalty, Search
from transformer.pictures.alignment import draw_alignment
from transformer.progress import counting
from transformer.tasks.parts.losses import sequence_losses
from transformer.tasks.parts.models import SequenceToSequence
from transformer.tasks.parts.protocol import Losses, Pace, Shown
from transformer.tasks.parts.tokenizers import tokenizer_digest
from transformer.traced import RateOrOff
from transformer.types import Batch, Data, Json, Params

_TOKENIZER = TokenizerChoice("bpe")


@dataclasses.dataclass(frozen=True)
class PairTask(abc.ABC):
    """Sequence to sequence. A subclass defines the pairs and the scores.

    Attributes:
        train: files to train on; empty for pairs that need no file.
        validation: as `train`; empty takes a part of the training pairs. Needs `train`.
        tokenizer: the tokenizer of both sides, made from the training pairs.
        validation_fraction: the fraction of the training pairs for validation, if there are no
            other validation pairs.
        max_length: the most tokens of a sentence, its end included.
        too_long: what happens to longer sentences: `truncate` drops such pairs in training, cuts
            the sentences elsewhere, and reports how many; `refuse` stops.
        batch_tokens: the tokens of one side of a batch, padding included, over all hosts and
            microbatches.
        rows_multiple: the number of rows in a batch is a multiple of this; microbatches times
            devices must divide it.
        packing: whether several pairs share a row of `max_length` tokens, so that all batches have
            one shape; otherwise a batch holds pairs of similar length.
        label_smoothing: see `ops.losses.cross_entropy`; Vaswani et al. 2017, section 5.4.
        vocab_chunk: see `language_modeling`; 0 scores all positions at once.
        beam_size: the number of hypotheses kept in the search; Vaswani et al. 2017, section 6.1.
        length_penalty: see `ops.search_rules.length_penalty`.
        search: further rules of the search; see `ops.search_rules.Search`.
    """

    DIMENSIONS: ClassVar[tuple[str, ...]] = ("vocab_size",)
    entry: ClassVar[str] = "__call__"
    model_kind: ClassVar[type] = SequenceToSequence
    # The file in a run's folder with all outputs for the validation pairs.
    OUTPUTS: ClassVar[str] = "outputs.tsv"
    # Whether long sources are cut in training, too: only if they then still suit their targets.
    CUTS_SOURCES: ClassVar[bool] = False

    train: FilePath = ""
    validation: FilePath = ""
    tokenizer: TokenizerChoice = _TOKENIZER
    validation_fraction: PartOrNone = 0.05
    max_length: Annotated[int, Whole(2, 1 << 20)] = 128
    too_long: Annotated[str, OneOf(("truncate", "refuse"))] = "truncate"
    batch_tokens: Annotated[int, Whole(1, 1 << 26)] = 4096
    rows_multiple: BatchSize = 8
    packing: bool = False
    label_smoothing: RateOrOff = 0.1
    vocab_chunk: CountOrZero = 0
    beam_size: Annotated[int, Whole(1, 1000)] = 4
    length_penalty: Penalty = 0.6
    search: Search = USUAL

    def check(self) -> None:
        """Refuses values that cannot work."""
        if self.validation and not self.train:
            raise ConfigError("config.task.validation needs config.task.train beside it.")
        self.search.check_penalty(self.length_penalty, "config.task.length_penalty")

    # ------------------------------------------------------------- what a subclass defines

    @abc.abstractmethod
    def read(self) -> PairTexts:
        """The pairs to train on and to validate on.

        Raises:
            DataError: if they cannot be used.
        """

    @abc.abstractmethod
    def read_others(self, paths: Sequence[str]) -> PairTexts:
        """Other pairs to validate on, without training pairs.

        Raises:
            ConfigError: if the paths are not those of pairs.
            DataError: if they cannot be used.
        """

    @abc.abstractmethod
    def output_scores(self, outputs: Sequence[str], references: Sequence[str]) -> Json:
        """Scores of outputs, in percent."""

    @abc.abstractmethod
    def output_limits(self) -> dict[str, int]:
        """Limits of the output length: fields of `decoding.translate.Beam`."""

    # ------------------------------------------------------------- what a subclass may define

    def require_scoring(self) -> None:  # noqa: B027 - most scores need no package.
        """Refuses early, not after hours of training, if outputs cannot be scored.

        Raises:
            MissingDependencyError: naming the missing package.
        """

    def prompt(self, line: str) -> str:
        """The source for a line of input to a trained model."""
        return line

    @property
    def longest_target(self) -> int | None:
        """The most tokens of a target, its end included; None means `max_length`."""
        return None

    # ---------------------------------------------------------------------------- data

    def load(self, workdir: Path | None) -> PairData:
        """Reads or makes the pairs, makes or loads the tokenizer, and tokenizes."""
        self.require_scoring()
        texts = self.read()
        notes: list[str] = []
        train, validation = without_empty(texts.train, notes), texts.validation
        lines = ([*pairs.source, *pairs.target] for pairs in (train, validation))
        tokenizer = self.tokenizer.of_run(SentenceTokenizer, workdir, *lines)
        return PairData(
            tokenizer,
            self._tokenize(tokenizer, train, notes, training=True),
            self._tokenize(tokenizer, validation, notes),
            validation,
            texts.longer,
            tuple(notes),
            texts.groups,
        )

    def load_validation(self, paths: Sequence[str], workdir: Path) -> PairData:
        """Other pairs to validate on, with the tokenizer of a run."""
        texts = self.read_others(paths)
        tokenizer = self.load_tokenizer(workdir)
        notes: list[str] = []
        tokens = self._tokenize(tokenizer, texts.validation, notes)
        text = (texts.validation, texts.longer)
        return PairData(tokenizer, tokens, tokens, *text, tuple(notes), texts.groups)

    def load_tokenizer(self, workdir: Path) -> SentenceTokenizer:
        """The tokenizer of a run."""
        return require_tokenizer(SentenceTokenizer, workdir)

    def save(self, data: PairData, workdir: Path) -> None:
        """Writes the tokenizer."""
        data.tokenizer.save(workdir)

    def dimensions(self, data: PairData) -> dict[str, int]:
        """The vocabulary; the model may have more entries than the tokenizer, not fewer."""
        return {"vocab_size": data.tokenizer.vocab_size}

    def fingerprint(self, data: PairData) -> str:
        """Changes with the tokenizer (first part) and all pairs."""
        sides = [*data.train, *data.validation]
        contents = b"".join(hashlib.sha256(side.tokens.tobytes()).digest() for side in sides)
        digest = tokenizer_digest(data.tokenizer)
        return f"{digest}-{hashlib.sha256(contents).hexdigest()[:32]}"

    def describe(self, data: PairData) -> str:
        """Sizes, shapes of batches, padding, and what was left out."""
        _, order = self._training(data, seed=0, num_steps=1)
        batches = order.batches_per_epoch
        shapes = ", ".join(f"{bucket.rows}x{bucket.length}" for bucket in batches)
        padding = padding_fraction(data.train, batches, self.longest_target)
        lines = [
            f"{len(data.train.source):,} pairs to train on, {len(data.validation.source):,} to "
            f"validate on, {data.tokenizer.vocab_size:,} tokens in the vocabulary.",
            f"Batches have {len(batches)} shapes, each compiled once ({shapes}); "
            f"{padding:.1%} of their tokens are padding.",
            *data.notes,
        ]
        return "\n".join(lines)

    def check_model(self, model: SequenceToSequence) -> None:  # noqa: B027
        """Nothing to check: all encoder-decoders can do the job."""

    def pace(self, data: PairData) -> Pace:
        """Tokens are those of the target, without padding."""
        steps = self._training(data, seed=0, num_steps=1)[1].steps_per_epoch
        pairs = len(data.train.target)
        return Pace(pairs / steps, len(data.train.target.tokens) / steps, pairs)

    def batch_rows(self, data: Data) -> tuple[int]:
        """`rows_multiple`, which divides all numbers of rows."""
        return (self.rows_multiple,)

    def train_batches(self, data: PairData, *, seed: int, num_steps: int) -> Batches:
        """The arrays of `data.pairs.batches.lay_out` for each step."""
        return Batches(*self._training(data, seed=seed, num_steps=num_steps))

    def validation_batches(self, data: PairData) -> Batches:
        """Every validation pair once."""
        rows = self._bucketed(data.validation)
        return Batches(rows, bucketed(rows.lengths, rows.buckets))

    # -------------------------------------------------------------------- loss and scores

    def example_inputs(self, model: SequenceToSequence) -> tuple[Int[Array, "1 T"], ...]:
        """One pair of the greatest length."""
        tokens = jnp.zeros((1, self.max_length), jnp.int32)
        return tokens, tokens

    def losses(
        self, model: SequenceToSequence, params: Params, batch: Batch, rngs: dict[str, jax.Array]
    ) -> Losses:
        """Cross-entropy of every token of the target; `loss` is without smoothing."""
        return sequence_losses(model, params, batch, rngs, self.vocab_chunk, self.label_smoothing)

    def encode_sources(
        self, tokenizer: SentenceTokenizer, lines: Sequence[str], first: int = 0
    ) -> tuple[list[np.ndarray], int]:
        """Token ids of sentences to translate, and how many were cut to `max_length`.

        Args:
            tokenizer: the run's tokenizer.
            lines: the sentences.
            first: the number of lines before these, for messages.

        Raises:
            DataError: if one is too long and `too_long` is `refuse`.
        """
        return self._encode(tokenizer, [self.prompt(line.strip()) for line in lines], first)

    def _encode(
        self, tokenizer: SentenceTokenizer, lines: Sequence[str], first: int = 0
    ) -> tuple[list[np.ndarray], int]:
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

    def beam(self, **changes: object) -> Beam:
        """The search that the config asks for, with `changes` applied."""
        limits = self.search.limits() or self.output_limits()
        beam = Beam(self.beam_size, self.length_penalty, search=self.search, **limits)
        return dataclasses.replace(beam, **changes)

    def scores(self, model: SequenceToSequence, params: Params, data: PairData) -> Json:
        """Scores of the outputs for the validation pairs."""
        return self._translate(model, params, data)[1]

    def show(
        self, model: SequenceToSequence, params: Params, data: PairData, workdir: Path
    ) -> Shown:
        """Shows scores and some translations, and draws the cross-attention of one.

        All outputs are written to the file `OUTPUTS`.
        """
        found, scores = self._translate(model, params, data)
        outputs, (source, target) = best_texts(found), data.validation_text
        rows = [("source", "reference", "output"), *zip(source, target, outputs, strict=True)]
        lines = ("\t".join(re.sub(r"[\t\n]", " ", text) for text in row) for row in rows)
        write_text(workdir / self.OUTPUTS, "".join(f"{line}\n" for line in lines))
        # For a validation pair of medium length.
        order = np.argsort(data.validation.source.lengths, kind="stable")
        index = int(order[int(0.6 * len(order))])
        ids = data.validation.source[index][:-1]
        for best in found[index][:1]:
            place = workdir / "alignment.png"
            draw_alignment(model, params, data.tokenizer, ids, best.ids, place)
        lines = [
            f"{name:<24} {value:.2f}" if isinstance(value, float) else f"{name:<24} {value}"
            for name, value in scores.items()
        ]
        for index in np.linspace(0, len(outputs) - 1, min(3, len(outputs))).astype(int):
            lines += [f"  {textwrap.shorten(source[index], 300)}", f"  -> {outputs[index]}"]
            if outputs[index] != target[index]:
                lines += [f"  not {target[index]}"]
        numbers = {name: value for name, value in scores.items() if isinstance(value, float)}
        return Shown("\n".join(lines), numbers)

    # ------------------------------------------------------------------------------ parts

    def _tokenize(
        self,
        tokenizer: SentenceTokenizer,
        pairs: Pairs,
        notes: list[str],
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
            max_target_length=self.longest_target,
            cut_sources=self.CUTS_SOURCES,
        )

    def _bucketed(self, pairs: TokenPairs) -> PairRows:
        buckets = make_buckets(
            pairs.lengths,
            batch_tokens=self.batch_tokens,
            longest=self.max_length,
            rows_multiple=self.rows_multiple,
        )
        return PairRows(pairs, buckets, self.longest_target)

    def _training(
        self, data: PairData, *, seed: int, num_steps: int
    ) -> tuple[PairRows | PackedPairs, Planned]:
        if not self.packing:
            pairs = self._bucketed(data.train)
            return pairs, bucketed(pairs.lengths, pairs.buckets, seed, num_steps)
        number = self.batch_tokens // self.max_length // self.rows_multiple
        bucket = Bucket(max(1, number) * self.rows_multiple, self.max_length)
        rows = PackedPairs(data.train, self.max_length, seed, self.longest_target)
        return rows, packed(len(rows), bucket, seed, num_steps)

    def _translate(
        self, model: SequenceToSequence, params: Params, data: PairData
    ) -> tuple[list[list[Output]], Json]:
        """The outputs for the validation pairs, and their scores."""

        def outputs_and_scores(text: Pairs) -> tuple[list[list[Output]], Json]:
            sources = self._encode(data.tokenizer, text.source)[0]
            with counting(len(sources), "translated", "sentences") as update:
                found = translate(model, params, data.tokenizer, sources, self.beam(), update)
            return found, self.output_scores(best_texts(found), text.target)

        found, scores = outputs_and_scores(data.validation_text)
        if data.longer_text.source:
            scores["exact_match_longer"] = outputs_and_scores(data.longer_text)[1]["exact_match"]
        kinds = sorted(set(data.groups))
        for kind in kinds if len(kinds) > 1 else ():
            rows = [row for row, group in enumerate(data.groups) if group == kind]
            sides = (best_texts(found), data.validation_text.target)
            part = self.output_scores(*([side[row] for row in rows] for side in sides))
            scores |= {f"{name}[{kind}]": value for name, value in part.items()}
        return found, scores
