"""Peptides, one a line, relatives held out together."""

from transformer.data.embedded.peptides import peptides


def read(validation_fraction: float) -> tuple[str, str]:
    """The peptides to train on, and the held-out ones, which are always the same."""
    train, validation = peptides()
    # In the order of letters, neighbours would be relatives.
    return tuple(  # pyright: ignore[reportReturnType]
        "".join(f"{sequence}\n" for sequence in sorted(part.sequences, key=lambda s: s[::-1]))
        for part in (train, validation)
    )
