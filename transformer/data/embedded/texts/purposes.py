"""The texts of the pairs `purposes` one after another, whole packages held out."""

from transformer.data.embedded.purposes import purposes


def read(validation_fraction: float) -> tuple[str, str]:
    """A text to train on, and one of the held-out packages, which are always the same."""
    train, validation = (
        "".join(f"{source}\n{target}\n\n" for source, target in zip(*pairs, strict=True))
        for pairs in purposes()
    )
    return train, validation
