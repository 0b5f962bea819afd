"""The docstrings of Python's standard library as running text, whole modules held out."""

from transformer.data.embedded.docstrings import docstring_text


def read(validation_fraction: float) -> tuple[str, str]:
    """The docstrings of the modules to train on, and those of a fraction of them."""
    return docstring_text(validation_fraction)
