"""FASTA: each protein is a document of one line."""

from transformer.data.proteins.fasta import is_fasta, read_fasta


def is_one(path: str) -> bool:
    """Whether the name of a file says that it is FASTA."""
    return is_fasta(path)


def read(path: str) -> list[list[str]]:
    """The sequences, without their names."""
    return [[protein.sequence] for protein in read_fasta(path)]
