"""Protein sequences in FASTA files (Pearson and Lipman 1988).

A line that begins with `>` names a sequence; the lines up to the next one hold its residues.
"""

import re
from pathlib import Path
from typing import NamedTuple

from transformer.data.reading.text import read_text
from transformer.data.tokenizers.residues import ALPHABET, AMINO_ACIDS
from transformer.errors import DataError

# Suffixes of the files, before those of compression.
SUFFIXES = (".fasta", ".fa", ".faa", ".fas")
_LETTERS = "".join(token for token in ALPHABET if len(token) == 1)
_STRANGE = re.compile(f"[^{re.escape(_LETTERS)}]")


class Protein(NamedTuple):
    """A sequence and its name, the first word behind `>`; the name may be empty."""

    name: str
    sequence: str


def read_fasta(path: str | Path) -> list[Protein]:
    """The sequences of a FASTA file: plain, or compressed with gzip or xz.

    Residues are capitals: those of the genetic code, `B`, `Z`, `X`, `U` and `O`; gaps are `-` and
    `.`. A stop, `*`, is dropped at the end of a sequence.

    Raises:
        DataError: if the file cannot be read; or naming line and sequence, if a sequence is empty
            or has any other character, lower case among them.
    """
    found: list[Protein] = []
    name, parts, first = "", list[str](), 0

    def finish() -> None:
        if not parts:
            raise DataError(
                f"{path}, line {first}: the sequence {name or len(found) + 1!r} is empty: give its "
                f"residues below the line, or leave it out."
            )
        found.append(Protein(name, "".join(parts)))

    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.startswith(">"):
            if first:
                finish()
            words = line[1:].split(maxsplit=1)
            name, parts, first = words[0] if words else "", [], number
        elif line and not line.isspace():
            if not first:
                raise DataError(
                    f"{path}, line {number}: a sequence begins before any name: a FASTA file "
                    f"begins with a line such as '>P12345'."
                )
            # No stop can stand before further residues.
            if parts and parts[-1].endswith("*"):
                raise _strange(path, number - 1, name, "*")
            parts.append(checked_residues("".join(line.split()), path, number, name))
    finish()
    return [protein._replace(sequence=protein.sequence.removesuffix("*")) for protein in found]


def is_fasta(path: str | Path) -> bool:
    """Whether the name of a file says that it is one."""
    name = str(path).lower().removesuffix(".gz").removesuffix(".xz")
    return name.endswith(SUFFIXES)


def checked_residues(residues: str, path: str | Path, number: int, name: str) -> str:
    """A line of residues, if it has nothing else in it, save a stop at its end.

    Args:
        residues: the line.
        path: its file, for messages.
        number: its number.
        name: the name of the sequence.

    Raises:
        DataError: naming line, sequence and character.
    """
    strange = _STRANGE.search(residues.removesuffix("*"))
    if strange:
        raise _strange(path, number, name, strange[0])
    return residues


def _strange(path: str | Path, number: int, name: str, letter: str) -> DataError:
    where = f"{path}, line {number}: the sequence {name!r} has {letter!r}"
    if letter.islower():
        return DataError(
            f"{where}. Lower case marks insertions in alignments, and uncertain regions elsewhere: "
            f"give capitals where the residues are meant, for example with: sed '/^>/!s/.*/\\U&/'"
        )
    return DataError(
        f"{where}, which stands for no residue: expected {AMINO_ACIDS}, or X for an unknown one."
    )
