"""Language identification: the messages of Django in almost a hundred languages.

They are the compiled message catalogues of the package `django` (BSD licence), read without
importing it. Most messages are short: menu entries, names of months, error messages.
"""

import functools
import re
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from transformer.data.embedded.held_out import is_held_out
from transformer.data.embedded.packages import package_folder
from transformer.data.labels.tables import LabelledTexts
from transformer.errors import DataError, MissingDependencyError

# The share of messages that is kept for validation.
VALIDATION_FRACTION = 0.1

# The number of unique strings that a language needs to be distinguishable.
MIN_STRINGS = 100

# Placeholders: %s, %(name)s, {name}. Their letters belong to no language.
_PLACEHOLDER = re.compile(r"%(\(\w+\))?[a-z]|\{\w*\}")


class _Translation(NamedTuple):
    """A string of one language.

    Attributes:
        catalogue: the file that has it, such as `admin/djangojs`.
        held_out: whether the messages that it translates are kept for validation.
    """

    catalogue: str
    held_out: bool


# For each language its translations, by their strings.
_Languages = dict[str, dict[str, _Translation]]


def languages(*, min_strings: int = MIN_STRINGS) -> tuple[LabelledTexts, LabelledTexts]:
    """Strings and the languages they are in, named as Django names them, such as `pt_BR`.

    Strings that do not identify a language are left out: those that several languages share, and
    English, whose variants hardly differ. A variant with few unique strings, such as some Spanish
    ones, is left out, so that the others need not differ from it. The English message decides
    whether its translations, in all languages, are for training or for validation.

    With Django 5.2 these are 93 languages and 52,000 strings, 9 percent of them for validation;
    4,000 that languages share are left out. Reading takes some 2 seconds.

    Args:
        min_strings: languages with fewer strings of their own are left out.

    Returns:
        For training and for validation: strings with their placeholders, no two alike, white space
        collapsed.

    Raises:
        MissingDependencyError: if the package `django` or `babel` is not installed.
        DataError: if the catalogues cannot be used.
    """
    return _split(_translations(), min_strings)


def catalogue_documents() -> tuple[list[list[str]], list[list[str]]]:
    """The same strings as raw text, including those that do not identify a language.

    A document is one catalogue in one language, with one string per line.

    Returns:
        For training: all strings that are not held out in any language, including those that
        languages share and those of languages with few strings. For validation: exactly the
        validation strings of `languages`.

    Raises:
        MissingDependencyError: if the package `django` or `babel` is not installed.
        DataError: if the catalogues cannot be used.
    """
    everything = _translations()
    held_out = {
        string
        for translations in everything.values()
        for string, translation in translations.items()
        if translation.held_out
    }
    _, validation = _split(everything, MIN_STRINGS)
    evaluated = set(zip(validation.texts, validation.labels, strict=True))
    train_documents: dict[tuple[str, str], list[str]] = {}
    validation_documents: dict[tuple[str, str], list[str]] = {}
    for language, translations in everything.items():
        for string, translation in translations.items():
            document = language, translation.catalogue
            if (string, language) in evaluated:
                validation_documents.setdefault(document, []).append(string)
            elif string not in held_out:
                train_documents.setdefault(document, []).append(string)
    return list(train_documents.values()), list(validation_documents.values())


def _split(everything: _Languages, min_strings: int) -> tuple[LabelledTexts, LabelledTexts]:
    found = _distinct(everything, min_strings)
    train, validation = (
        [
            (string, language)
            for language, translations in found.items()
            for string, translation in translations.items()
            if translation.held_out == held_out
        ]
        for held_out in (False, True)
    )
    if not train or not validation:
        raise DataError(
            f"no language of the installed django has {min_strings} strings of its own: install "
            f"Django 5 as it is published."
        )
    return _labelled(train), _labelled(validation)


def _labelled(examples: Iterable[tuple[str, str]]) -> LabelledTexts:
    texts, labels = (list(column) for column in zip(*examples, strict=True))
    return LabelledTexts(texts, None, labels)


def _distinct(everything: _Languages, min_strings: int) -> _Languages:
    """The unique strings of each language that has enough of them.

    The language with the fewest is removed first, which leaves more to those that resemble it.
    """
    remaining = dict(everything)
    while remaining:
        shared = Counter(string for strings in remaining.values() for string in strings)
        own = {
            language: {string: line for string, line in strings.items() if shared[string] == 1}
            for language, strings in remaining.items()
        }
        fewest = min(own, key=lambda language: len(own[language]))
        if len(own[fewest]) >= min_strings:
            return own
        del remaining[fewest]
    return {}


def _translations() -> _Languages:
    """All strings of all languages but English, in the order of their names.

    A string that translates messages of both sides, training and validation, is left out.
    """
    found: _Languages = {}
    on_both_sides = set()
    for language, catalogue, path in _catalogues():
        strings = found.setdefault(language, {})
        for message, string in _messages(path):
            translation = _Translation(catalogue, _is_kept(message))
            if strings.setdefault(string, translation).held_out != translation.held_out:
                on_both_sides.add((language, string))
    for language, string in on_both_sides:
        del found[language][string]
    return found


def _catalogues() -> list[tuple[str, str, Path]]:
    """Language, name and path of each catalogue, sorted."""
    root = package_folder("django")
    if root is None:
        raise MissingDependencyError("django", "data", "telling languages apart")
    pattern = "locale/*/LC_MESSAGES/django*.mo"
    found = []
    for path in [*root.glob(f"conf/{pattern}"), *root.glob(f"contrib/*/{pattern}")]:
        language, application = path.parts[-3], path.parts[-5]
        if language.split("_")[0] != "en":
            found.append((language, f"{application}/{path.stem}", path))
    if not found:
        raise DataError(
            f"{root} has no compiled message catalogues (.mo): install Django as it is published."
        )
    return sorted(found)


def _messages(path: Path) -> Iterator[tuple[str, str]]:
    """English messages and their translations, one for each plural form, of one catalogue.

    The sources beside them (`.po`) are not read: Babel complains about some of their plural forms
    on standard output.
    """
    try:
        from babel.messages.mofile import read_mo
    except ImportError:
        raise MissingDependencyError("babel", "data", "telling languages apart") from None
    try:
        with path.open("rb") as file:
            # Plural forms make tuples of messages and translations.
            messages = list(read_mo(file))
    except (OSError, ValueError, struct.error) as error:
        raise DataError(f"{path} is no message catalogue: {error}. Install Django again.") from None
    for message in messages:
        english = message.id if isinstance(message.id, str) else message.id[0]
        forms = [message.string] if isinstance(message.string, str) else message.string
        # The catalogue's own description translates the empty message.
        if english:
            for form in forms:
                string = " ".join(form.split())
                if _has_letters(string):
                    yield english, string


def _has_letters(string: str) -> bool:
    return any(character.isalpha() for character in _PLACEHOLDER.sub("", string))


@functools.cache
def _is_kept(message: str) -> bool:
    """Whether a message is kept for validation, in all catalogues.

    Only letters and digits decide, not their case: "Delete?" and "delete" are in the same part,
    because their translations hardly differ.
    """
    return is_held_out("".join(filter(str.isalnum, message.casefold())), VALIDATION_FRACTION)
