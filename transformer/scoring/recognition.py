"""Scores of transcripts: word and character error rates, as jiwer counts errors."""

import importlib.util
from collections.abc import Sequence
from typing import NamedTuple

from transformer.errors import MissingDependencyError


class Errors(NamedTuple):
    """The fewest changes that turn references into outputs (Levenshtein 1966).

    Attributes:
        substitutions: other words, or characters.
        deletions: those that are missing.
        insertions: those that nobody said.
        total: words, or characters, of the references.
    """

    substitutions: int
    deletions: int
    insertions: int
    total: int

    @property
    def rate(self) -> float:
        """Errors in percent of the references; of none, 100 for each error."""
        return 100.0 * (self.substitutions + self.deletions + self.insertions) / max(1, self.total)


def require_jiwer() -> None:
    """Refuses early, not after hours of training, if transcripts cannot be scored.

    Raises:
        MissingDependencyError: if jiwer is not installed.
    """
    if importlib.util.find_spec("jiwer") is None:
        raise MissingDependencyError("jiwer", "speech", "measuring word error rates")


def recognition_scores(outputs: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Scores of a whole set, in percent.

    Nothing is normalised but white space: a capital or a comma is an error.

    Args:
        outputs: one transcript for each reference.
        references: the expected texts.

    Returns:
        `word_error_rate` and `character_error_rate`, which can be above 100, and `exact_match`; 0
        where there is nothing to score.

    Raises:
        MissingDependencyError: if jiwer is not installed.
    """
    said, expected = ([" ".join(text.split()) for text in texts] for texts in (outputs, references))
    same = sum(output == reference for output, reference in zip(said, expected, strict=True))
    return {
        "word_error_rate": word_errors(said, expected).rate,
        "character_error_rate": _errors(said, expected, characters=True).rate,
        "exact_match": 100.0 * same / max(1, len(expected)),
    }


def word_errors(outputs: Sequence[str], references: Sequence[str]) -> Errors:
    """The errors of a whole set in words. What is heard where nothing is said is inserted.

    Args:
        outputs: one transcript for each reference.
        references: the expected texts.

    Raises:
        MissingDependencyError: if jiwer is not installed.
    """
    return _errors(outputs, references, characters=False)


def _errors(outputs: Sequence[str], references: Sequence[str], *, characters: bool) -> Errors:
    require_jiwer()
    import jiwer

    pairs = list(zip(outputs, references, strict=True))
    # jiwer refuses empty references.
    spoken = [(output, reference) for output, reference in pairs if reference.strip()]
    heard = [output for output, reference in pairs if not reference.strip()]
    inserted = sum(len(text.strip()) if characters else len(text.split()) for text in heard)
    if not spoken:
        return Errors(0, 0, inserted, 0)
    count = jiwer.process_characters if characters else jiwer.process_words
    said, expected = zip(*spoken, strict=True)
    found = count(list(expected), list(said))
    total = found.hits + found.substitutions + found.deletions
    return Errors(found.substitutions, found.deletions, found.insertions + inserted, total)
