"""ROUGE: how much of a reference's wording a summary contains (Lin 2004).

The scores equal those of the package `rouge-score` without stemming, so they can be compared with
published ones.
"""

import collections
import re
from collections.abc import Sequence

_WORD = re.compile(r"[a-z0-9]+")


def rouge_scores(outputs: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Means of ROUGE over pairs of an output and its reference, in percent; 0 without any.

    Args:
        outputs: one output for each reference.
        references: the expected texts.

    Returns:
        F1 measures: `rouge1` and `rouge2` of words and pairs of words (Lin 2004, section 2),
        `rougeL` of the longest common subsequence (section 3.1), and `rougeLsum`, the same sentence
        by sentence, one on each line (section 3.2). Words are letters a to z and digits in any
        case; others separate them.
    """
    measures = {
        "rouge1": lambda output, reference: overlap(output, reference, 1),
        "rouge2": lambda output, reference: overlap(output, reference, 2),
        "rougeL": common_subsequence,
        "rougeLsum": common_subsequences,
    }
    count = max(1, len(references))
    pairs = list(zip(outputs, references, strict=True))
    return {
        name: 100.0 * sum(measure(*pair) for pair in pairs) / count
        for name, measure in measures.items()
    }


def overlap(output: str, reference: str, length: int) -> float:
    """ROUGE-N: the F1 measure of the n-grams of `length` words that both contain."""
    ours, theirs = (_runs(_words(text), length) for text in (output, reference))
    return _f1((ours & theirs).total(), ours.total(), theirs.total())


def common_subsequence(output: str, reference: str) -> float:
    """ROUGE-L: the F1 measure of the words of a longest common subsequence."""
    ours, theirs = _words(output), _words(reference)
    return _f1(len(_longest(theirs, ours)), len(ours), len(theirs))


def common_subsequences(output: str, reference: str) -> float:
    """ROUGE-Lsum: as ROUGE-L, for texts of several lines.

    A word of a reference line counts if it is in a longest common subsequence with any line of the
    output, but not more often than it occurs in the output.
    """
    ours, theirs = (
        [words for words in map(_words, text.split("\n")) if words] for text in (output, reference)
    )
    left = collections.Counter(word for line in ours for word in line)
    num_ours, found = left.total(), 0
    for line in theirs:
        places = {place for other in ours for place in _longest(line, other)}
        for place in sorted(places):
            if left[line[place]]:
                left[line[place]] -= 1
                found += 1
    return _f1(found, num_ours, sum(map(len, theirs)))


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _runs(words: Sequence[str], length: int) -> collections.Counter:
    return collections.Counter(zip(*(words[start:] for start in range(length)), strict=False))


def _longest(reference: Sequence[str], output: Sequence[str]) -> list[int]:
    """Indices in the reference of a longest common subsequence.

    Of several, it is the one that ends latest in the reference, and then in the output.
    """
    # lengths[i][j]: the longest common subsequence of the first i and the first j words.
    lengths = [[0] * (len(output) + 1)]
    for word in reference:
        above, row = lengths[-1], [0]
        for place, other in enumerate(output):
            both = above[place] + 1 if word == other else max(row[place], above[place + 1])
            row.append(both)
        lengths.append(row)
    places = []
    i, j = len(reference), len(output)
    while i and j:
        if reference[i - 1] == output[j - 1]:
            i, j = i - 1, j - 1
            places.append(i)
        elif lengths[i][j - 1] > lengths[i - 1][j]:
            j -= 1
        else:
            i -= 1
    return places[::-1]


def _f1(common: int, num_output: int, num_reference: int) -> float:
    """The harmonic mean of precision and recall; 0 if nothing is shared."""
    return 2.0 * common / (num_output + num_reference) if common else 0.0
