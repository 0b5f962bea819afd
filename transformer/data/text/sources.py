"""The texts of a job: from files, or from a package.

Texts that need no file are modules of `data/embedded/texts/`, and such documents are modules of
`data/embedded/documents/`: to add one, add a file there.
"""

import importlib

from transformer.data.embedded import documents, texts
from transformer.data.reading.text import read_text, split_text
from transformer.data.text.documents import split_documents
from transformer.errors import DataError
from transformer.sections import plugin_names

# The values of `config.task.embedded`.
TEXTS, DOCUMENTS = tuple(plugin_names(texts)), tuple(plugin_names(documents))


def read_texts(
    path: str, validation_path: str, validation_fraction: float, embedded: str
) -> tuple[str, str]:
    """A text to train on and one to validate on.

    Args:
        path: a UTF-8 text file; empty takes `embedded`.
        validation_path: likewise, for validation; empty takes the end of `path`.
        validation_fraction: how much of `path` that end is. What needs no file may hold out as
            much in its own way.
        embedded: one of `TEXTS`, where there is no path.

    Raises:
        DataError: if a file is missing or holds no such text.
        MissingDependencyError: if the package that a text comes with is not installed.
    """
    if not path:
        return importlib.import_module(f"{texts.__name__}.{embedded}").read(validation_fraction)
    if validation_path:
        return read_text(path), read_text(validation_path)
    return split_text(read_text(path), validation_fraction)


def read_documents(
    path: str, validation_path: str, validation_fraction: float, embedded: str
) -> tuple[list[list[str]], list[list[str]]]:
    """Documents of sentences to train on and to validate on.

    Args:
        path: see `read_texts`, as for the others; a sentence a line, blank lines between documents.
        validation_path: likewise, for validation; empty takes the last documents of `path`.
        validation_fraction: which part of the documents of `path` that is.
        embedded: one of `DOCUMENTS`, where there is no path.

    Raises:
        DataError: if a file is missing, or has too few documents.
        MissingDependencyError: if the package that documents come with is not installed.
    """
    if not path:
        return importlib.import_module(f"{documents.__name__}.{embedded}").read()
    found = split_documents(read_text(path))
    if validation_path:
        return found, split_documents(read_text(validation_path))
    count = max(1, round(len(found) * validation_fraction))
    if count >= len(found):
        raise DataError(
            f"{path} has {len(found)} documents (they are separated by blank lines): too few to "
            f"keep one for validation. Give more, or config.task.validation_path."
        )
    return found[:-count], found[-count:]
