"""Turning a sequence into another: translation, or anything else given as pairs of lines."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, ClassVar

from transformer.data.embedded import sequences
from transformer.data.pairs.files import Pairs, PairTexts, made_up_pairs, read_pairs, split_pairs
from transformer.limits import OneOf, Text, Whole
from transformer.scoring.translation import require_sacrebleu, translation_scores
from transformer.tasks.parts.pairs import PairTask
from transformer.types import Json

# Pairs that need no file.
EMBEDDED = ("phrases", *sequences.KINDS)


@dataclasses.dataclass(frozen=True)
class Translation(PairTask):
    """Sequence to sequence; its fields are `config.task`.

    `PairTask` describes the other fields.

    Attributes:
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

    OUTPUTS: ClassVar[str] = "translations.tsv"

    embedded: Annotated[str, OneOf(EMBEDDED)] = "phrases"
    source_language: Text = "en"
    target_language: Text = "de"
    num_pairs: Annotated[int, Whole(2, 10**6)] = 40_000
    sequence_length: Annotated[int, Whole(2, 1 << 12)] = 16
    extra_length: Annotated[int, Whole(0, 1 << 24)] = 50

    def read(self) -> PairTexts:
        """The pairs to train on and to validate on."""
        if not self.train:
            made = made_up_pairs(
                self.embedded,
                count=self.num_pairs,
                languages=(self.source_language, self.target_language),
                longest=self.sequence_length,
                validation_fraction=self.validation_fraction,
            )
            return PairTexts(*made)
        train = read_pairs(self.train, "config.task.train")
        if self.validation:
            return PairTexts(train, read_pairs(self.validation, "config.task.validation"))
        return PairTexts(*split_pairs(train, self.validation_fraction, self.train))

    def read_others(self, paths: Sequence[str]) -> PairTexts:
        """Other pairs to validate on."""
        return PairTexts(Pairs([], []), read_pairs(paths, "--source and --reference"))

    def require_scoring(self) -> None:
        """Refuses if sacreBLEU, which BLEU and chrF need, is missing."""
        require_sacrebleu()

    def output_scores(self, outputs: Sequence[str], references: Sequence[str]) -> Json:
        """BLEU, chrF and exact matches."""
        return translation_scores(outputs, references)

    def output_limits(self) -> dict[str, int]:
        """As many tokens as the source, and `extra_length` more."""
        return {"extra_length": self.extra_length}
