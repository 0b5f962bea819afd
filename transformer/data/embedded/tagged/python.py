"""What the names in functions of Python's standard library stand for, whole packages held out."""

from transformer.data.embedded.python_names import python_names
from transformer.data.labels.conll import TaggedSentences


def read() -> tuple[TaggedSentences, TaggedSentences]:
    """The functions to train on and to validate on."""
    return python_names()
