"""Known contacts of residues in proteins, for fitting and judging predictions."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from transformer.data.proteins.fasta import Protein
from transformer.data.reading.text import read_text
from transformer.errors import DataError


def read_contacts(path: str | Path, proteins: list[Protein]) -> list[Bool[np.ndarray, "n n"]]:
    """The contacts of each protein, as symmetric maps.

    Args:
        path: a text file with a contact a line: the protein's name and the numbers of two residues,
            from 1, separated by tabs.
        proteins: the proteins.

    Raises:
        DataError: if the file cannot be read, or naming the line, if it names no such residues; or
            if a protein has no contacts.
    """
    places = {protein.name: place for place, protein in enumerate(proteins)}
    maps = [np.zeros((len(each.sequence), len(each.sequence)), bool) for each in proteins]
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        name, first, second = _fields(line, f"{path}, line {number}", places)
        size = len(maps[places[name]])
        if not (0 < first <= size and 0 < second <= size and first != second):
            raise DataError(
                f"{path}, line {number}: residues {first} and {second} are no two of the {size} of "
                f"{name}."
            )
        maps[places[name]][first - 1, second - 1] = maps[places[name]][second - 1, first - 1] = True
    for protein, found in zip(proteins, maps, strict=True):
        if not found.any():
            raise DataError(
                f"{path} has no contacts of {protein.name or 'a protein without name'}."
            )
    return maps


def _fields(line: str, where: str, known: Mapping[str, int]) -> tuple[str, int, int]:
    fields = line.strip().split("\t")
    numbers = [field for field in fields[1:] if field.isdecimal() and len(field) < 10]
    if len(fields) != 3 or len(numbers) != 2:
        raise DataError(f"{where}: expected a name and two numbers of residues, with tabs between.")
    if fields[0] not in known:
        raise DataError(f"{where}: there is no protein {fields[0]!r} in the FASTA file.")
    return fields[0], int(numbers[0]), int(numbers[1])
