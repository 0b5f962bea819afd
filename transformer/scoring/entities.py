"""Entities in sequences of tags, and scores of how many were found.

The rules are those of the script `conlleval` of the shared task CoNLL-2000 (Tjong Kim Sang and
Buchholz 2000), which `seqeval` follows by default: an entity counts if its type, first and last
word are right. Tags may be of IOB1, IOB2, IOBES or BILOU, also mixed or wrong, as a model's are:
an entity begins wherever the one before cannot continue. A tag without a prefix continues an equal
tag before it, as `transformers` groups them.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

Entity = tuple[str, int, int]

# The tag of words outside of entities.
OUTSIDE = "O"
# BILOU's last and unit are IOBES' end and single.
_PREFIXES = {"B": "B", "I": "I", "E": "E", "S": "S", "L": "E", "U": "S"}
ALL_PREFIXES = frozenset(_PREFIXES)


class _Counts(NamedTuple):
    """Counts of entities: found and true, found, true."""

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


def prefixes_of(labels: Iterable[str]) -> frozenset[str]:
    """The letters before a hyphen that count as position prefixes in a set of tags.

    If all tags but `O` have a prefix, all six letters of IOB, IOBES and BILOU count. Otherwise only
    B and I do: `E-mail` and `S-Bahn` may be types.
    """
    inside = [label for label in labels if label != OUTSIDE]
    return frozenset(_PREFIXES if all(map(_has_prefix, inside)) else "BI")


def tell_entities(labels: Iterable[str]) -> bool:
    """Whether tags mark entities: there is a tag for words outside, or tags have prefixes.

    Parts of speech do not: every word has one, and equal neighbours are not one entity.
    """
    labels = list(labels)
    return OUTSIDE in labels or all(map(_has_prefix, labels))


def _has_prefix(label: str) -> bool:
    prefix, _, kind = label.partition("-")
    return prefix in _PREFIXES and bool(kind)


def entities(tags: Sequence[str], prefixes: frozenset[str] = ALL_PREFIXES) -> set[Entity]:
    """The entities of one sentence.

    Args:
        tags: the tags of its words: `O`, `PREFIX-TYPE`, or `TYPE`.
        prefixes: see `prefixes_of`.

    Returns:
        Type, first word and one past the last word of each entity.
    """
    found = set()
    previous, kind, first = OUTSIDE, "", 0
    for place, tag in enumerate([*tags, OUTSIDE]):
        prefix, next_kind = _split(tag, prefixes)
        begins = prefix in "BS" or previous in "OES" or next_kind != kind
        if previous != OUTSIDE and (prefix == OUTSIDE or begins):
            found.add((kind, first, place))
        if prefix != OUTSIDE and begins:
            first = place
        previous, kind = prefix, next_kind
    return found


def tag_accuracy(predicted: Sequence[Sequence[str]], truth: Sequence[Sequence[str]]) -> float:
    """The share of words whose tag is right, over all sentences together; 0 without words.

    Raises:
        ValueError: if the numbers of sentences or words differ.
    """
    pairs = [
        pair
        for sentences in zip(predicted, truth, strict=True)
        for pair in zip(*sentences, strict=True)
    ]
    return sum(guess == tag for guess, tag in pairs) / len(pairs) if pairs else 0.0


def entity_scores(
    predicted: Sequence[Sequence[str]],
    truth: Sequence[Sequence[str]],
    prefixes: frozenset[str] = ALL_PREFIXES,
) -> dict[str, float]:
    """How well entities were found, over all sentences together.

    Args:
        predicted: tags of the words of each sentence.
        truth: the true tags.
        prefixes: see `prefixes_of`.

    Returns:
        Fractions: `precision`, `recall` and `f1` of all entities, `f1_TYPE` of each type that was
        found or is true, and `accuracy`, the share of words whose tag is right. A share of nothing
        is 0.

    Raises:
        ValueError: if the numbers of sentences or words differ.
    """
    accuracy = tag_accuracy(predicted, truth)
    types, everything = _counts(predicted, truth, prefixes)
    return {
        "precision": everything.precision,
        "recall": everything.recall,
        "f1": everything.f1,
        **{f"f1_{kind}": counts.f1 for kind, counts in types.items()},
        "accuracy": accuracy,
    }


def entity_table(
    predicted: Sequence[Sequence[str]],
    truth: Sequence[Sequence[str]],
    prefixes: frozenset[str] = ALL_PREFIXES,
) -> str:
    """Precision, recall and F1 of each type and of all entities, in per cent, as lines of text.

    Args:
        predicted: tags of the words of each sentence.
        truth: the true tags.
        prefixes: see `prefixes_of`.

    Returns:
        A header, one line for each type, and one for all; `entities` is the number of true ones.

    Raises:
        ValueError: if the numbers of sentences differ.
    """
    types, everything = _counts(predicted, truth, prefixes)
    rows = [*types.items(), ("all", everything)]
    width = max(len("type"), *(len(name) for name, _ in rows))
    lines = [f"{'type':{width}}  precision  recall     f1  entities"]
    lines += [
        f"{name:{width}}  {100 * counts.precision:9.2f}  {100 * counts.recall:6.2f}  "
        f"{100 * counts.f1:5.1f}  {counts.true:8,}"
        for name, counts in rows
    ]
    return "\n".join(lines)


def _split(tag: str, prefixes: frozenset[str]) -> tuple[str, str]:
    """The prefix, as an IOBES letter, and the type."""
    prefix, _, kind = tag.partition("-")
    if tag == OUTSIDE:
        return OUTSIDE, ""
    return (_PREFIXES[prefix], kind) if prefix in prefixes and kind else ("I", tag)


def _counts(
    predicted: Sequence[Sequence[str]],
    truth: Sequence[Sequence[str]],
    prefixes: frozenset[str],
) -> tuple[dict[str, _Counts], _Counts]:
    """Counts of each type, in alphabetical order, and of all."""
    correct, found, true = Counter(), Counter(), Counter()
    for guessed_tags, tags in zip(predicted, truth, strict=True):
        guessed, real = entities(guessed_tags, prefixes), entities(tags, prefixes)
        for counter, some in ((correct, guessed & real), (found, guessed), (true, real)):
            counter.update(kind for kind, _, _ in some)
    types = {kind: _Counts(correct[kind], found[kind], true[kind]) for kind in sorted(found | true)}
    return types, _Counts(correct.total(), found.total(), true.total())
