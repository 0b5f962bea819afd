"""Proteins with a label for each residue, such as secondary structure: records of three lines.

>1ABC
MKTAYIAK
CCHHHHEC
"""

from pathlib import Path

from transformer.data.labels.conll import TaggedSentences, check_tag
from transformer.data.proteins.fasta import checked_residues
from transformer.data.reading.text import read_text
from transformer.errors import DataError


def read_residue_labels(path: str | Path) -> TaggedSentences:
    """The residues of each protein, and a label of one letter for each.

    Args:
        path: a text file, plain or compressed with gzip or xz, of records of three lines: `>` and a
            name, all residues, and all labels. Blank lines are skipped.

    Raises:
        DataError: if the file cannot be read or has no record; or naming the line, if a line is not
            what it should be.
    """
    numbered = enumerate(read_text(path).split("\n"), 1)
    lines = [(number, line.strip()) for number, line in numbered if line.strip()]
    found = TaggedSentences([], [])
    for first in range(0, len(lines), 3):
        record = lines[first : first + 3]
        number, head = record[0]
        if not head.startswith(">") or len(record) < 3:
            raise DataError(
                f"{path}, line {number}: a record has three lines, '>' and a name, the residues, "
                f"and their labels."
            )
        residues = checked_residues(record[1][1], path, record[1][0], head[1:].strip())
        number, labels = record[2]
        if len(labels) != len(residues):
            raise DataError(
                f"{path}, line {number} has {len(labels)} labels for {len(residues)} residues: "
                f"expected a letter for each."
            )
        for label in set(labels):
            check_tag(label, f"{path}, line {number}")
        found.words.append(list(residues))
        found.tags.append(list(labels))
    return found
