"""Mutations of a protein: `A23V` puts V where the sequence has A as residue 23."""

import math
import re
from collections.abc import Iterable
from typing import NamedTuple

from transformer.errors import DataError

_FORM = re.compile(r"([A-Z])([1-9]\d{0,8})([A-Z])")


class Mutation(NamedTuple):
    """One residue in place of another.

    Attributes:
        before: the residue of the sequence.
        place: where it is, from 0.
        after: the residue in its place.
    """

    before: str
    place: int
    after: str


def parse_mutations(text: str, sequence: str, where: str) -> tuple[Mutation, ...]:
    """The mutations of one variant, separated by `:`; none for `WT`, the sequence itself.

    Args:
        text: such as `A23V:K40E`; places count from 1.
        sequence: the sequence that is mutated.
        where: the origin of the text, for messages.

    Raises:
        DataError: if it is written in another way, or does not fit the sequence.
    """
    if text == "WT":
        return ()
    found = []
    for part in text.split(":"):
        match = _FORM.fullmatch(part)
        if not match:
            raise DataError(
                f"{where}: {part!r} is no mutation: write it as A23V, which puts V where the "
                f"sequence has A as residue 23, and several with colons between."
            )
        before, place, after = match[1], int(match[2]) - 1, match[3]
        if place >= len(sequence) or sequence[place] != before:
            there = f"{sequence[place]} there" if place < len(sequence) else "no such residue"
            raise DataError(
                f"{where}: {part} does not fit the sequence of {len(sequence)} residues, which has "
                f"{there}."
            )
        found.append(Mutation(before, place, after))
    if len({mutation.place for mutation in found}) < len(found):
        raise DataError(f"{where}: {text} changes a residue twice.")
    return tuple(found)


class Variant(NamedTuple):
    """A variant of a protein.

    Attributes:
        text: as it is written.
        mutations: what differs from the protein.
        measured: a measured number; None if there is none.
    """

    text: str
    mutations: tuple[Mutation, ...]
    measured: float | None


def read_variants(lines: Iterable[str], sequence: str) -> list[Variant]:
    """A variant a line, and behind a tab maybe a measured number.

    Raises:
        DataError: for a line with anything else, naming it.
    """
    found = []
    for number, line in enumerate(lines, 1):
        where = f"line {number} of the input"
        text, tab, rest = line.strip().partition("\t")
        measured = None
        if tab:
            try:
                measured = float(rest)
            except ValueError:
                measured = math.nan
            if not math.isfinite(measured):
                raise DataError(f"{where}: {rest!r} is no finite number.")
        found.append(Variant(text, parse_mutations(text, sequence, where), measured))
    return found
