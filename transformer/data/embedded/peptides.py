"""Antimicrobial and other peptides, labelled, with relatives held out together.

They are a table of the package `modlamp` (Mueller et al. 2017), read without importing it: peptides
of the database APD3, which kill microbes, and stretches of proteins of UniProt, which are not known
to.
"""

import collections
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from transformer.data.embedded.held_out import is_held_out
from transformer.data.embedded.packages import package_folder
from transformer.errors import DataError, MissingDependencyError

_TABLE = Path("data", "AMPvsUniProt.csv")
# Relatives share this fraction of the runs of three residues that the shorter one has.
_RUN, _SHARED = 3, 0.5
_VALIDATION = 0.2


class Peptides(NamedTuple):
    """Sequences and the label of each: `AMP` or `UniProt`."""

    sequences: list[str]
    labels: list[str]


def peptides() -> tuple[Peptides, Peptides]:
    """The peptides to train on, and the held-out ones; none of these is a relative of the former.

    Relatives of relatives are on the same side. Peptides with both labels are left out.

    Raises:
        MissingDependencyError: if the package `modlamp` is not installed.
    """
    folder = package_folder("modlamp")
    if folder is None:
        raise MissingDependencyError("modlamp", "proteins", "training on peptides")
    found = _table(folder / _TABLE)
    sequences = sorted(found)
    groups = relatives(sequences)
    sizes = collections.Counter(groups)
    largest = max(sizes.values())
    # By the first member. The largest group would be most of what is held out.
    held_out = {
        group: is_held_out(sequences[group], _VALIDATION) and sizes[group] < largest
        for group in sizes
    }
    sides = (
        [
            sequence
            for sequence, group in zip(sequences, groups, strict=True)
            if held_out[group] is side
        ]
        for side in (False, True)
    )
    train, validation = (Peptides(side, [found[sequence] for sequence in side]) for side in sides)
    return train, validation


def relatives(sequences: Sequence[str]) -> list[int]:
    """The group of each sequence: the place of its first member.

    Groups are the connected components of a graph, in which two sequences are neighbours if they
    share half of the different runs of three residues that the one with fewer has.

    Args:
        sequences: n different sequences.
    """
    runs = [
        {sequence[start : start + _RUN] for start in range(len(sequence) - _RUN + 1)}
        for sequence in sequences
    ]
    members = collections.defaultdict(list)
    for place, own in enumerate(runs):
        for run in own:
            members[run].append(place)
    count = len(sequences)
    pairs = [np.zeros(0, np.int64)]
    for places in members.values():
        first, second = np.triu_indices(len(places), 1)
        held = np.array(places, np.int64)
        pairs.append(held[first] * count + held[second])
    codes, shared = np.unique(np.concatenate(pairs), return_counts=True)
    sizes = np.array([len(own) for own in runs])
    firsts, seconds = codes // count, codes % count
    close = shared >= _SHARED * np.minimum(sizes[firsts], sizes[seconds])
    groups = list(range(count))

    def root(place: int) -> int:
        while groups[place] != place:
            groups[place] = groups[groups[place]]
            place = groups[place]
        return place

    for first, second in zip(firsts[close].tolist(), seconds[close].tolist(), strict=True):
        low, high = sorted((root(first), root(second)))
        groups[high] = low
    return [root(place) for place in range(count)]


def _table(path: Path) -> dict[str, str]:
    """The label of each sequence that has only one.

    Raises:
        DataError: if the table has another layout.
    """
    lines = path.read_text("utf-8").split("\n") if path.is_file() else []
    rows = [[cell.strip() for cell in line.split(",")] for line in lines if line.strip()]
    # The header: the number of rows, of columns, and the names of the labels 0 and 1.
    if not rows or len(rows[0]) != 4 or any(len(row) != 2 for row in rows[1:]):
        raise DataError(f"the installed modlamp has no table of peptides in {path}.")
    names = {"0": rows[0][2], "1": rows[0][3]}
    known = collections.defaultdict(set)
    for sequence, label in itertools.islice(rows, 1, None):
        known[sequence].add(names[label])
    return {sequence: min(labels) for sequence, labels in known.items() if len(labels) == 1}
