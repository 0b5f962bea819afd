"""Turning a sequence into another: translation, or anything else given as pairs of lines."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import jax
import numpy as np
from jaxtyping import Array, Int

from transformer.composition import FLAT
from transformer.data.embedded import sequences
from transformer.data.pairs.files import Pairs, PairTexts, made_up_pairs, read_pairs, split_pairs
from transformer.data.tokenizers.protocol import SentenceTokenizer
from transformer.decoding.translate import Beam
from transformer.limits import OneOf, Text, Whole
from transformer.scoring.translation import require_sacrebleu, translation_scores
from transformer.tasks.parts.models import SequenceToSequence
from transformer.tasks.parts.pairs import PairData, PairLayout
from transformer.tasks.parts.protocol import Losses, Shown
from transformer.tasks.parts.training_files import TrainingFiles
from transformer.tasks.parts.writing import Writing, outputs_and_scores, show_outputs
from transformer.types import Batch, Json, Params

# Pairs that need no file.
EMBEDDED = ("phrases", *sequences.KINDS)
_FILES, _LAYOUT, _WRITING = TrainingFiles(validation_fraction=0.05), PairLayout(), Writing()


@dataclasses.dataclass(frozen=True)
class Translation:
    """Sequence to sequence; its fields are `config.task`.

    Attributes:
        files: which files are read.
        layout: how pairs become tokens, and tokens batches.
        writing: the loss, and the search for outputs.
        train: two line-aligned files separated by a comma, `SOURCE,TARGET`, plain or gzip; empty
            for pairs that need no file.
        validation: as `train`; empty takes the end of the training pairs.
        embedded: pairs that need no file: `phrases` are dates, numbers, units and the like from
            templates of Unicode's CLDR; `copy`, `reverse` and `sort` are random letters.
        source_language: the CLDR locale of the sources of `phrases`.
        target_language: the CLDR locale of the targets of `phrases`.
        num_pairs: the number of embedded pairs, validation included.
        sequence_length: the length of the longest `copy`, `reverse` or `sort` sequence in training.
            Sequences of up to 1.5 times this length are scored, too.
        extra_length: an output has at most this many tokens more than its source.
    """

    DIMENSIONS: ClassVar[tuple[str, ...]] = ("vocab_size",)
    entry: ClassVar[str] = "__call__"
    model_kind: ClassVar[type] = SequenceToSequence

    files: Annotated[TrainingFiles, FLAT] = _FILES
    layout: Annotated[PairLayout, FLAT] = _LAYOUT
    writing: Annotated[Writing, FLAT] = _WRITING
    embedded: Annotated[str, OneOf(EMBEDDED)] = "phrases"
    source_language: Text = "en"
    target_language: Text = "de"
    num_pairs: Annotated[int, Whole(2, 10**6)] = 40_000
    sequence_length: Annotated[int, Whole(2, 1 << 12)] = 16
    extra_length: Annotated[int, Whole(0, 1 << 24)] = 50

    @property
    def max_length(self) -> int:
        """The most tokens of a source, its end included."""
        return self.layout.max_length

    # ------------------------------------------------------------------------------- data

    def load(self, workdir: Path | None) -> PairData:
        """Reads or makes the pairs, makes or loads the tokenizer, and tokenizes.

        Raises:
            MissingDependencyError: if sacreBLEU, which BLEU and chrF need, is missing: early, not
                after hours of training.
        """
        require_sacrebleu()
        return self.layout.load(self._read(), workdir)

    def load_validation(self, paths: Sequence[str], workdir: Path) -> PairData:
        """Other pairs to validate on, with the tokenizer of a run."""
        others = PairTexts(Pairs([], []), read_pairs(paths, "--source and --reference"))
        return self.layout.load_validation(others, workdir)

    def load_tokenizer(self, workdir: Path) -> SentenceTokenizer:
        """The tokenizer of a run."""
        return self.layout.load_tokenizer(workdir)

    def _read(self) -> PairTexts:
        """The pairs to train on and to validate on."""
        files = self.files
        if not files.train:
            made = made_up_pairs(
                self.embedded,
                count=self.num_pairs,
                languages=(self.source_language, self.target_language),
                longest=self.sequence_length,
                validation_fraction=files.validation_fraction,
            )
            return PairTexts(*made)
        pairs = read_pairs(files.train, "config.task.train")
        if files.validation:
            return PairTexts(pairs, read_pairs(files.validation, "config.task.validation"))
        return PairTexts(*split_pairs(pairs, files.validation_fraction, files.train))

    def check_model(self, model: SequenceToSequence) -> None:
        """Nothing to check: all encoder-decoders can do the job."""

    def example_inputs(self, model: SequenceToSequence) -> tuple[Int[Array, "1 T"], ...]:
        """One pair of the greatest length."""
        return self.layout.example_inputs()

    # ------------------------------------------------------------------- loss and outputs

    def losses(
        self, model: SequenceToSequence, params: Params, batch: Batch, rngs: dict[str, jax.Array]
    ) -> Losses:
        """Cross-entropy of every token of the target."""
        return self.writing.losses(model, params, batch, rngs)

    def encode_sources(
        self, tokenizer: SentenceTokenizer, lines: Sequence[str], first: int = 0
    ) -> tuple[list[np.ndarray], int]:
        """Token ids of sentences to translate, and how many were cut; see `PairLayout`."""
        return self.layout.encode_sources(tokenizer, [line.strip() for line in lines], first)

    def beam(self, **changes: object) -> Beam:
        """The search that the config asks for, with `changes` applied."""
        return self.writing.beam({"extra_length": self.extra_length}, **changes)

    def output_scores(self, outputs: Sequence[str], references: Sequence[str]) -> Json:
        """BLEU, chrF and exact matches."""
        return translation_scores(outputs, references)

    def scores(self, model: SequenceToSequence, params: Params, data: PairData) -> Json:
        """Scores of the outputs for the validation pairs."""
        return outputs_and_scores(self, model, params, data)[1]

    def show(
        self, model: SequenceToSequence, params: Params, data: PairData, workdir: Path
    ) -> Shown:
        """Shows scores and some translations; writes all to `translations.tsv`."""
        return show_outputs(self, model, params, data, workdir / "translations.tsv")
