"""Peptides, one document each, relatives held out together."""

from transformer.data.embedded.peptides import peptides


def read() -> tuple[list[list[str]], list[list[str]]]:
    """The documents to train on and to validate on."""
    train, validation = peptides()
    return [[each] for each in train.sequences], [[each] for each in validation.sequences]
