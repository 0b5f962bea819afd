"""Bodies and first lines of docstrings of Python's standard library, whole modules held out."""

from transformer.data.embedded.docstrings import summaries
from transformer.data.pairs.files import Pairs


def read(validation_fraction: float) -> tuple[Pairs, Pairs]:
    """The pairs of the modules to train on, and those of a fraction of them."""
    return summaries(validation_fraction)
