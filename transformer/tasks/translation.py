"""Turning a sequence into another one: translation, or anything else written as pairs of lines."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import flax.linen as nn
import grain
import jax
import jax.numpy as jnp
import numpy as np

from transformer.checks import require_at_least, require_choice, require_fraction
from transformer.data import sequences
from transformer.data.pair_batches import Bucket, BucketedBatches, PackedBatches, make_buckets
from transformer.data.pairs import (
    Pairs,
    TokenPairs,
    TranslationData,
    made_up_pairs,
    read_pairs,
    tokenize_pairs,
    without_empty,
)
from transformer.data.sentence_tokenizers import (
    SentenceTokenizer,
    load_sentence_tokenizer,
    make_sentence_tokenizer,
)
from transformer.decoding.alignment import draw_alignment
from transformer.decoding.translate import Beam, Output, sentence_progress, translate
from transformer.errors import ConfigError, DataError, WorkdirError
from transformer.scoring.translation import require_sacrebleu, translation_scores
from transformer.tasks.base import (
    Losses,
    Pace,
    Shown,
    require_tokenizer_of,
    sequence_losses,
    tokenizer_digest,
)

# Pairs that need no file.
EMBEDDED = ("phrases", *sequences.KINDS)


@dataclasses.dataclass(frozen=True)
class Translation:
    """Sequence to sequence; its fields are `config.task`.

    Attributes:
        train: two line-aligned files with a comma between, `SOURCE,TARGET`, plain or gzip; empty
            for pairs that need no file.
        validation: likewise; empty takes the end of the training pairs.
        validation_fraction: how much of them.
        embedded: pairs that need no file: `phrases` are dates, numbers, units and the like from
            templates of Unicode's CLDR; `copy`, `reverse` and `sort` are random letters.
        source_language: of `phrases`, a CLDR locale.
        target_language: likewise.
        num_pairs: of embedded pairs, validation included.
        sequence_length: of the longest `copy`, `reverse` or `sort` in training. Scores are given
            for sequences up to half as long again too.
        tokenizer: `bpe` (byte-level, made from the training pairs of both sides), `character`, or
            the path of a `tokenizer.json` or of a SentencePiece `.model`.
        bpe_vocab_size: tokens of `bpe`.
        max_length: tokens of a sentence, its end included.
        too_long: what becomes of longer ones: `truncate` leaves such pairs out of training and cuts
            the sentence elsewhere, and says how many; `refuse` stops.
        batch_tokens: of one side of a batch, padding included, over all hosts and microbatches.
        rows_multiple: what the number of rows in a batch is a multiple of; microbatches times
            devices must divide it.
        packing: several pairs share a row of `max_length` tokens, so that all batches have one
            shape; otherwise a batch holds pairs of similar length.
        label_smoothing: see `ops.losses.cross_entropy`; Vaswani et al. 2017, section 5.4.
        vocab_chunk: scores the vocabulary in chunks of this many tokens to save memory; 0 scores
            it whole.
        beam_size: hypotheses kept when translating; the paper's section 6.1.
        length_penalty: see `decoding.beam.length_penalty`.
        extra_length: an output has at most so many tokens more than its source.
    """

    DIMENSIONS: ClassVar[tuple[str, ...]] = ("vocab_size",)
    entry: ClassVar[str] = "__call__"

    train: str = ""
    validation: str = ""
    validation_fraction: float = 0.05
    embedded: str = "phrases"
    source_language: str = "en"
    target_language: str = "de"
    num_pairs: int = 40_000
    sequence_length: int = 16
    tokenizer: str = "bpe"
    bpe_vocab_size: int = 8192
    max_length: int = 128
    too_long: str = "truncate"
    batch_tokens: int = 4096
    rows_multiple: int = 8
    packing: bool = False
    label_smoothing: float = 0.1
    vocab_chunk: int = 0
    beam_size: int = 4
    length_penalty: float = 0.6
    extra_length: int = 50

    def check(self) -> None:
        """Refuses values that cannot work.

        Raises:
            ConfigError: naming the field.
        """
        require_at_least(
            "task", self, num_pairs=2, sequence_length=2, max_length=2, rows_multiple=1
        )
        require_at_least("task", self, batch_tokens=1, beam_size=1, extra_length=0)
        require_fraction("task", self, "label_smoothing", "validation_fraction")
        require_choice("task", self, embedded=EMBEDDED, too_long=("truncate", "refuse"))
        if self.length_penalty < 0:
            raise ConfigError(f"config.task.length_penalty is {self.length_penalty}: 0 or more.")
        if self.validation and not self.train:
            raise ConfigError("config.task.validation needs config.task.train beside it.")

    # ---------------------------------------------------------------------------- data

    def load(self, workdir: Path | None) -> TranslationData:
        """Reads or makes the pairs, makes or loads the tokenizer, and tokenizes."""
        require_sacrebleu()
        train, validation, longer = self._read()
        notes: list[str] = []
        train = without_empty(train, notes)
        tokenizer = None if workdir is None else load_sentence_tokenizer(workdir)
        if tokenizer is None:
            lines = [*train.source, *train.target]
            if self.tokenizer == "character":
                # Characters that only the validation pairs have are in the vocabulary too.
                lines += [*validation.source, *validation.target]
            tokenizer = make_sentence_tokenizer(self.tokenizer, lines, self.bpe_vocab_size)
        return TranslationData(
            tokenizer,
            self._tokenize(tokenizer, train, notes, training=True),
            self._tokenize(tokenizer, validation, notes),
            validation,
            longer,
            tuple(notes),
        )

    def load_validation(self, paths: Sequence[str], workdir: Path) -> TranslationData:
        """Other pairs to validate on, with the tokenizer of a run."""
        text = read_pairs(paths, "--source and --reference")
        tokenizer = self.load_tokenizer(workdir)
        notes: list[str] = []
        tokens = self._tokenize(tokenizer, text, notes)
        return TranslationData(tokenizer, tokens, tokens, text, Pairs([], []), tuple(notes))

    def load_tokenizer(self, workdir: Path) -> SentenceTokenizer:
        """The tokenizer of a run.

        Raises:
            WorkdirError: if there is none.
        """
        tokenizer = load_sentence_tokenizer(workdir)
        if tokenizer is None:
            raise WorkdirError(f"{workdir} has no tokenizer.json or tokenizer.model.")
        return tokenizer

    def check_run(self, workdir: Path, fingerprint: str) -> None:
        """Refuses a tokenizer that is not the checkpoint's."""
        require_tokenizer_of(fingerprint, self.load_tokenizer(workdir).to_text(), workdir)

    def save(self, data: TranslationData, workdir: Path) -> None:
        """Writes the tokenizer."""
        data.tokenizer.save(workdir)

    def dimensions(self, data: TranslationData) -> dict[str, int]:
        """The vocabulary; the model may have more entries than the tokenizer, not fewer."""
        return {"vocab_size": data.tokenizer.vocab_size}

    def fingerprint(self, data: TranslationData) -> str:
        """Of the tokenizer, then of all pairs."""
        sides = [*data.train, *data.validation]
        contents = b"".join(hashlib.sha256(side.tokens.tobytes()).digest() for side in sides)
        digest = tokenizer_digest(data.tokenizer.to_text())
        return f"{digest}-{hashlib.sha256(contents).hexdigest()[:32]}"

    def describe(self, data: TranslationData) -> str:
        """Sizes, shapes of batches, padding, and what was left out."""
        batches = self._train_batches(data, seed=0, num_steps=1)
        shapes = ", ".join(f"{bucket.rows}x{bucket.length}" for bucket in batches.buckets)
        lines = [
            f"{len(data.train.source):,} pairs to train on, {len(data.validation.source):,} to "
            f"validate on, {data.tokenizer.vocab_size:,} tokens in the vocabulary.",
            f"Batches have {len(batches.buckets)} shapes, each compiled once ({shapes}); "
            f"{batches.padding():.1%} of their tokens are padding.",
            *data.notes,
        ]
        return "\n".join(lines)

    def check_model(self, model: Any) -> None:
        """Every model will do: sinusoidal positions have no end."""

    def pace(self, data: TranslationData) -> Pace:
        """Tokens are those of the target, without padding."""
        steps = self._train_batches(data, seed=0, num_steps=1).steps_per_epoch
        pairs = len(data.train.target)
        return Pace(pairs / steps, len(data.train.target.tokens) / steps, pairs)

    def batch_rows(self, data: TranslationData) -> tuple[int]:
        """All numbers of rows are multiples of this one."""
        return (self.rows_multiple,)

    def train_batches(
        self, data: TranslationData, *, seed: int, num_steps: int
    ) -> grain.MapDataset:
        """The arrays of `data.pair_batches.lay_out` for each step."""
        batches: Any = self._train_batches(data, seed=seed, num_steps=num_steps)
        return grain.MapDataset.source(batches)

    def validation_batches(self, data: TranslationData) -> grain.MapDataset:
        """Every validation pair once."""
        batches: Any = BucketedBatches(
            data.validation,
            self._buckets(data.validation),
            host=jax.process_index(),
            num_hosts=jax.process_count(),
        )
        return grain.MapDataset.source(batches)

    # -------------------------------------------------------------------- loss and scores

    def example_inputs(self, model: Any) -> tuple:
        """One pair of the greatest length."""
        tokens = jnp.zeros((1, self.max_length), jnp.int32)
        return tokens, tokens

    def losses(
        self, model: nn.Module, params: Any, batch: Any, rngs: dict[str, jax.Array]
    ) -> Losses:
        """Cross-entropy of every token of the target; `loss` is without smoothing."""
        return sequence_losses(model, params, batch, rngs, self.vocab_chunk, self.label_smoothing)

    def encode_sources(
        self, tokenizer: SentenceTokenizer, lines: Sequence[str], first: int = 0
    ) -> tuple[list[np.ndarray], int]:
        """Token ids of sentences to translate, and how many were cut to `max_length`.

        Args:
            tokenizer: of the run.
            lines: the sentences.
            first: how many lines came before them, for messages.

        Raises:
            DataError: if one is too long and `too_long` is `refuse`.
        """
        encoded = tokenizer.encode_lines([line.strip() for line in lines])
        room = self.max_length - 1
        long = [index for index, ids in enumerate(encoded) if len(ids) > room]
        if long and self.too_long == "refuse":
            raise DataError(
                f"line {first + long[0] + 1} has {len(encoded[long[0]])} tokens, more than the "
                f"{room} of config.task.max_length: shorten it, or allow it to be cut with "
                f"--too_long=truncate."
            )
        return [ids[:room] for ids in encoded], len(long)

    def beam(self, **changes: Any) -> Beam:
        """The search that the config asks for, `changes` put in their places."""
        beam = Beam(self.beam_size, self.length_penalty, extra_length=self.extra_length)
        return dataclasses.replace(beam, **changes)

    def scores(self, model: Any, params: Any, data: TranslationData) -> dict[str, Any]:
        """BLEU, chrF and exact matches of the validation pairs."""
        return self._translate(model, params, data)[1]

    def show(self, model: Any, params: Any, data: TranslationData, workdir: Path) -> Shown:
        """Scores, some translations, and a picture of what one of them looked at.

        All translations are written to `translations.tsv`.
        """
        found, scores = self._translate(model, params, data)
        outputs = [best[0].text if best else "" for best in found]
        source, target = data.validation_text
        rows = ("\t".join(row) for row in zip(source, target, outputs, strict=True))
        table = "source\treference\toutput\n" + "".join(f"{row}\n" for row in rows)
        (workdir / "translations.tsv").write_text(table, "utf-8")
        # Of a validation pair of middling length.
        order = np.argsort(data.validation.source.lengths, kind="stable")
        index = int(order[int(0.6 * len(order))])
        ids = data.validation.source[index][:-1]
        for best in found[index][:1]:
            picture = workdir / "alignment.png"
            draw_alignment(model, params, data.tokenizer, ids, best.ids, picture)
        lines = [
            f"{name:<24} {value:.2f}" if isinstance(value, float) else f"{name:<24} {value}"
            for name, value in scores.items()
        ]
        for index in np.linspace(0, len(outputs) - 1, min(3, len(outputs))).astype(int):
            lines += [f"  {source[index]}", f"  -> {outputs[index]}"]
            if outputs[index] != target[index]:
                lines += [f"  not {target[index]}"]
        numbers = {name: value for name, value in scores.items() if isinstance(value, float)}
        return Shown("\n".join(lines), numbers)

    # ------------------------------------------------------------------------------ parts

    def _read(self) -> tuple[Pairs, Pairs, Pairs]:
        """Pairs to train on, to validate on, and longer ones."""
        if not self.train:
            return made_up_pairs(
                self.embedded,
                count=self.num_pairs,
                languages=(self.source_language, self.target_language),
                longest=self.sequence_length,
                validation_fraction=self.validation_fraction,
            )
        train, none = read_pairs(self.train, "config.task.train"), Pairs([], [])
        if self.validation:
            return train, read_pairs(self.validation, "config.task.validation"), none
        if len(train.source) < 2:
            raise DataError(f"{self.train} has one pair: give more, or config.task.validation.")
        cut = round(len(train.source) * (1.0 - self.validation_fraction))
        cut = min(max(1, cut), len(train.source) - 1)
        kept = Pairs(train.source[:cut], train.target[:cut])
        return kept, Pairs(train.source[cut:], train.target[cut:]), none

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
        )

    def _buckets(self, pairs: TokenPairs) -> tuple[Bucket, ...]:
        return make_buckets(
            pairs.lengths,
            batch_tokens=self.batch_tokens,
            longest=self.max_length,
            rows_multiple=self.rows_multiple,
        )

    def _train_batches(
        self, data: TranslationData, *, seed: int, num_steps: int
    ) -> BucketedBatches | PackedBatches:
        host = {"host": jax.process_index(), "num_hosts": jax.process_count()}
        if self.packing:
            rows = self.batch_tokens // self.max_length // self.rows_multiple
            bucket = Bucket(max(1, rows) * self.rows_multiple, self.max_length)
            return PackedBatches(data.train, bucket, seed, num_steps, **host)
        return BucketedBatches(data.train, self._buckets(data.train), seed, num_steps, **host)

    def _translate(
        self, model: Any, params: Any, data: TranslationData
    ) -> tuple[list[list[Output]], dict[str, Any]]:
        """The outputs of the validation pairs, and scores."""

        def outputs_and_scores(text: Pairs) -> tuple[list[list[Output]], dict[str, Any]]:
            sources, _ = self.encode_sources(data.tokenizer, text.source)
            with sentence_progress(len(sources)) as update:
                found = translate(model, params, data.tokenizer, sources, self.beam(), update)
            made = [best[0].text if best else "" for best in found]
            return found, translation_scores(made, text.target)

        found, scores = outputs_and_scores(data.validation_text)
        if data.longer_text.source:
            _, longer = outputs_and_scores(data.longer_text)
            scores["exact_match_longer"] = longer["exact_match"]
        return found, scores
