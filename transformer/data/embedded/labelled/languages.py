"""Strings of Django's message catalogues, labelled with their language."""

from transformer.data.embedded.catalogues import languages
from transformer.data.labels.tables import LabelledTexts


def read() -> tuple[LabelledTexts, LabelledTexts]:
    """The strings to train on and to validate on."""
    return languages()
