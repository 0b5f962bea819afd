"""Django's message catalogues, one document for each catalogue in each language."""

from transformer.data.embedded.catalogues import catalogue_documents


def read() -> tuple[list[list[str]], list[list[str]]]:
    """The documents to train on and to validate on."""
    return catalogue_documents()
