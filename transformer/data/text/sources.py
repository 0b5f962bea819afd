"""The texts of a job: from files, or from a package.

Texts that need no file are modules of `data/embedded/texts/`, and such documents are modules of
`data/embedded/documents/`; formats of files besides plain text are modules of `data/text/formats/`.
To add one, add a file there.
"""

import importlib
from collections.abc import Sequence

from transformer.data.embedded import documents, texts
from transformer.data.embedded.held_out import is_held_out
from transformer.data.reading.text import read_text, split_text
from transformer.data.text import formats
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
        validation_path: likewise, for validation; empty takes the end of `path`, and of other
            formats than plain text some documents that are chosen by their text.
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
        return text_of(path), text_of(validation_path)
    found = _formatted(path)
    if found is None:
        return split_text(read_text(path), validation_fraction)
    train, validation = _held_out(found, validation_fraction, path)
    return _joined(train), _joined(validation)


def text_of(path: str) -> str:
    """The text of a file; documents of another format than plain text are lines.

    Raises:
        DataError: if the file is missing or holds no text.
    """
    found = _formatted(path)
    return read_text(path) if found is None else _joined(found)


def documents_of(path: str) -> list[list[str]]:
    """The documents of sentences of a file.

    Raises:
        DataError: if the file is missing or holds none.
    """
    found = _formatted(path)
    return split_documents(read_text(path)) if found is None else found


def read_documents(
    path: str, validation_path: str, validation_fraction: float, embedded: str
) -> tuple[list[list[str]], list[list[str]]]:
    """Documents of sentences to train on and to validate on.

    Args:
        path: see `read_texts`, as for the others; a sentence a line, blank lines between documents.
        validation_path: likewise, for validation; empty takes the last documents of `path`, and of
            other formats than plain text some that are chosen by their text.
        validation_fraction: which part of the documents of `path` that is.
        embedded: one of `DOCUMENTS`, where there is no path.

    Raises:
        DataError: if a file is missing, or has too few documents.
        MissingDependencyError: if the package that documents come with is not installed.
    """
    if not path:
        return importlib.import_module(f"{documents.__name__}.{embedded}").read()
    if validation_path:
        return documents_of(path), documents_of(validation_path)
    found = _formatted(path)
    if found is not None:
        return _held_out(found, validation_fraction, path)
    found = split_documents(read_text(path))
    count = max(1, round(len(found) * validation_fraction))
    if count >= len(found):
        raise DataError(
            f"{path} has {len(found)} documents (they are separated by blank lines): too few to "
            f"keep one for validation. Give more, or config.task.validation_path."
        )
    return found[:-count], found[-count:]


def _held_out(
    found: list[list[str]], fraction: float, path: str
) -> tuple[list[list[str]], list[list[str]]]:
    """Documents to train on, and others chosen by their text: files may be in any order."""
    chosen = [is_held_out("\n".join(document), fraction) for document in found]
    train, validation = (
        [document for document, out in zip(found, chosen, strict=True) if out is side]
        for side in (False, True)
    )
    if not (train and validation):
        raise DataError(
            f"{path} has {len(found)} documents: too few to keep one for validation. Give more, or "
            f"config.task.validation_path."
        )
    return train, validation


def _formatted(path: str) -> list[list[str]] | None:
    """The documents of a file that is not plain text; None if it is."""
    for name in plugin_names(formats):
        module = importlib.import_module(f"{formats.__name__}.{name}")
        if module.is_one(path):
            return module.read(path)
    return None


def _joined(found: Sequence[Sequence[str]]) -> str:
    return "".join(f"{line}\n" for document in found for line in document)
