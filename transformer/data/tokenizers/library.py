"""Tokenizers of the library `tokenizers`: reading and inspecting them."""

from collections.abc import Iterable
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from transformer.data.reading import bounds
from transformer.data.reading.library_errors import in_our_words
from transformer.data.reading.text import read_text
from transformer.errors import DataError


def bare_and_whole(library_tokenizer: tokenizers.Tokenizer) -> tuple[list[int], list[int]]:
    """The ids of a text that a tokenizer knows, without and with the tokens that it adds around."""
    for text in ("a", *sorted(library_tokenizer.get_vocab())):
        try:
            bare = library_tokenizer.encode(text, add_special_tokens=False).ids
        except Exception:  # The library raises bare Exception for a character that it lacks.
            continue
        if bare:
            return bare, library_tokenizer.encode(text, add_special_tokens=True).ids
    return [], []


def table_size(library_tokenizer: tokenizers.Tokenizer) -> int:
    """V: the number of rows of an embedding table, which is the largest id + 1."""
    return max(library_tokenizer.get_vocab().values(), default=-1) + 1


def check_characters(text: str, known: frozenset[str], instead: str) -> None:
    """Refuses a text with characters that a tokenizer of characters does not know.

    Args:
        text: what is to be tokenized.
        known: the tokenizer's characters.
        instead: the kinds of tokenizer to recommend, which know every text.

    Raises:
        DataError: if there is such a character; the first five are named.
    """
    unknown = sorted(set(text) - known)
    if unknown:
        shown = ", ".join(f"{c!r} (U+{ord(c):04X})" for c in unknown[:5])
        raise DataError(
            f"the tokenizer does not know {shown}{' and others' if len(unknown) > 5 else ''}: "
            f"it has only the {len(known)} characters of its training text. Leave them out, or "
            f"train with --config.task.tokenizer.kind={instead}, where no character is unknown."
        )


def read_tokenizer_json(path: str | Path) -> tokenizers.Tokenizer:
    """The library's tokenizer of a `tokenizer.json`.

    Raises:
        DataError: if it is missing or not a tokenizer.
    """
    if not Path(path).is_file():
        raise DataError(f"{path} does not exist: a tokenizer.json was expected there.")
    return _of_text(read_text(path, may_be_empty=True), f"{path} is not a tokenizer.json")


def parse_tokenizer_json(text: str, where: str | Path) -> tokenizers.Tokenizer:
    """The library's tokenizer in the text of a `tokenizer.json`.

    Args:
        text: the text of the file.
        where: its origin, for messages.

    Raises:
        DataError: if it is not a tokenizer.
    """
    return _of_text(text, f"{where}: its tokenizer is no tokenizer.json")


def _of_text(text: str, wrong: str) -> tokenizers.Tokenizer:
    with in_our_words(wrong):
        return require_ids(tokenizers.Tokenizer.from_str(text), wrong)


def require_ids(library_tokenizer: tokenizers.Tokenizer, wrong: str) -> tokenizers.Tokenizer:
    """Refuses ids so large that embedding tables would not fit into memory.

    Args:
        library_tokenizer: is returned.
        wrong: the problem to report, with the name of the file.

    Raises:
        DataError: if there is one.
    """
    size = table_size(library_tokenizer)
    if size > bounds.TOKENS:
        raise DataError(f"{wrong}: it has the id {size - 1:,}, and the most is {bounds.TOKENS:,}.")
    return library_tokenizer


def character_tokenizer(texts: Iterable[str]) -> tokenizers.Tokenizer:
    """The library's tokenizer with one token for each character of the texts, in order."""
    characters = sorted(set().union(*texts))
    vocabulary = {character: index for index, character in enumerate(characters)}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(vocabulary))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def byte_alphabet() -> list[str]:
    """The 256 characters that stand for bytes in byte-level tokenizers, in order."""
    return sorted(pre_tokenizers.ByteLevel.alphabet())
