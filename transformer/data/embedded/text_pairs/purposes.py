"""What functions and classes of installed packages are for, whole packages held out."""

from transformer.data.embedded.purposes import purposes
from transformer.data.pairs.files import Pairs


def read(validation_fraction: float) -> tuple[Pairs, Pairs]:
    """The pairs to train on, and those of the held-out packages, which are always the same."""
    return purposes()
