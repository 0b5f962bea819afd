"""Entities that tags stand for, and how many of them were found.

The rules are those of the script `conlleval` of the shared task CoNLL-2000 (Tjong Kim Sang and
Buchholz 2000), which `seqeval` follows by default: an entity counts if its type, first and last
word are right. Tags may be of IOB1, IOB2, IOBES or BILOU, also mixed or wrong, as a model's are:
an entity is taken to begin wherever one cannot be going on.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from transformer.errors import DataError

Entity = tuple[str, int, int]

# Last and unit of BILOU are end and single of IOBES.
_PREFIXES = {"B": "B", "I": "I", "E": "E", "S": "S", "L": "E", "U": "S"}


class _Counts(NamedTuple):
    """Entities found that are true, found, and true."""

    correct: int
    found: int
    true: int

    @property
    def precision(self) -> float:
        return self.correct / self.found if self.found else 0.0

    @property
    def recall(self) -> float:
        return self.correct / self.true if self.true else 0.0

    @property
    def f1(self) -> float:
        both = self.found + self.true
        return 2.0 * self.correct / both if both else 0.0


def entities(tags: Sequence[str]) -> set[Entity]:
    """The entities of one sentence.

    Args:
        tags: of its words, `O` or `PREFIX-TYPE`.

    Returns:
        Type, first word and one beyond the last word of each.

    Raises:
        DataError: if a tag is neither.
    """
    found = set()
    previous, kind, first = "O", "", 0
    for place, tag in enumerate([*tags, "O"]):
        prefix, next_kind = _split(tag)
        begins = prefix in "BS" or previous in "OES" or next_kind != kind
        if previous != "O" and (prefix == "O" or begins):
            found.add((kind, first, place))
        if prefix != "O" and begins:
            first = place
        previous, kind = prefix, next_kind
    return found


def entity_scores(
    predicted: Sequence[Sequence[str]], truth: Sequence[Sequence[str]]
) -> dict[str, float]:
    """How well entities were found, over all sentences together.

    Args:
        predicted: tags of the words of each sentence.
        truth: the tags that are right.

    Returns:
        Fractions: `precision`, `recall` and `f1` of all entities, `f1_TYPE` of each type that was
        found or is true, and `accuracy`, the share of words whose tag is right. What has nothing to
        be a share of is 0.

    Raises:
        DataError: if a tag is neither `O` nor `PREFIX-TYPE`.
        ValueError: if the two differ in their numbers of sentences or words.
    """
    pairs = [
        pair
        for sentences in zip(predicted, truth, strict=True)
        for pair in zip(*sentences, strict=True)
    ]
    right = sum(guess == tag for guess, tag in pairs)
    types, everything = _counts(predicted, truth)
    return {
        "precision": everything.precision,
        "recall": everything.recall,
        "f1": everything.f1,
        **{f"f1_{kind}": counts.f1 for kind, counts in types.items()},
        "accuracy": right / len(pairs) if pairs else 0.0,
    }


def entity_table(predicted: Sequence[Sequence[str]], truth: Sequence[Sequence[str]]) -> str:
    """Precision, recall and F1 of each type and of all entities, in per cent, as lines of text.

    Args:
        predicted: tags of the words of each sentence.
        truth: the tags that are right.

    Returns:
        A header and one line for each type, then one for all; `entities` is how many are true.

    Raises:
        DataError: if a tag is neither `O` nor `PREFIX-TYPE`.
        ValueError: if the two differ in their number of sentences.
    """
    types, everything = _counts(predicted, truth)
    rows = [*types.items(), ("all", everything)]
    width = max(len("type"), *(len(name) for name, _ in rows))
    lines = [f"{'type':{width}}  precision  recall     f1  entities"]
    lines += [
        f"{name:{width}}  {100 * counts.precision:9.2f}  {100 * counts.recall:6.2f}  "
        f"{100 * counts.f1:5.1f}  {counts.true:8,}"
        for name, counts in rows
    ]
    return "\n".join(lines)


def _split(tag: str) -> tuple[str, str]:
    """The prefix, as IOBES has it, and the type."""
    prefix, _, kind = tag.partition("-")
    if tag == "O":
        return "O", ""
    if prefix not in _PREFIXES or not kind:
        raise DataError(f"{tag!r} is no tag: expected O, or a prefix and a type such as B-PER.")
    return _PREFIXES[prefix], kind


def _counts(
    predicted: Sequence[Sequence[str]], truth: Sequence[Sequence[str]]
) -> tuple[dict[str, _Counts], _Counts]:
    """Counts of each type, in alphabetical order, and of all."""
    correct, found, true = Counter(), Counter(), Counter()
    for guessed_tags, tags in zip(predicted, truth, strict=True):
        guessed, real = entities(guessed_tags), entities(tags)
        for counter, some in ((correct, guessed & real), (found, guessed), (true, real)):
            counter.update(kind for kind, _, _ in some)
    types = {kind: _Counts(correct[kind], found[kind], true[kind]) for kind in sorted(found | true)}
    return types, _Counts(correct.total(), found.total(), true.total())
