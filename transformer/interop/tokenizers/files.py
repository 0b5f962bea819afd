"""Reads and changes the text of `tokenizer.json` files of published models."""

from pathlib import Path

from tokenizers import processors

from transformer.data.reading.content import read_bounded
from transformer.data.reading.json_text import parse_json, shown
from transformer.data.reading.text import decode_text
from transformer.data.tokenizers.library import parse_tokenizer_json
from transformer.errors import DataError
from transformer.types import Json


def read_tokenizer_text(path: Path) -> tuple[str, Json]:
    """Reads a `tokenizer.json` and checks its limits; returns its text and content.

    Raises:
        DataError: if it is not valid JSON within the limits.
    """
    text = decode_text(read_bounded(path), str(path))
    content = parse_json(text, path)
    if not isinstance(content, dict):
        raise DataError(f"{path} is not a tokenizer.json: it holds no object.")
    return text, content


def read_lines(path: Path) -> list[str]:
    """Reads the lines of a text file of a model.

    Raises:
        DataError: if it is missing, too large, or not text.
    """
    return decode_text(read_bounded(path), str(path)).split("\n")


def merge_pairs(merges: object, path: Path) -> list[tuple[str, str]]:
    """The pairs of tokens to merge; old files write a pair as a string with a space.

    Raises:
        DataError: if one is not a pair.
    """
    found = []
    for merge in merges if isinstance(merges, list) else [merges]:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not (isinstance(pair, list) and [type(part) for part in pair] == [str, str]):
            raise DataError(f"{path}: merges has {shown(merge)}, which is no pair of tokens.")
        found.append((pair[0], pair[1]))
    return found


def with_end(text: str, end: int) -> str:
    """Lets a tokenizer append a token to every text that is encoded with special tokens.

    Args:
        text: the text of a `tokenizer.json`; unchanged if it already adds tokens.
        end: the id of the token.
    """
    library_tokenizer = parse_tokenizer_json(text, "the model")
    if library_tokenizer.post_processor is not None:
        return text
    token = str(library_tokenizer.id_to_token(end))
    library_tokenizer.post_processor = processors.TemplateProcessing(
        single=["$A", token], pair=["$A", token, "$B", token], special_tokens=[(token, end)]
    )
    return library_tokenizer.to_str(pretty=True)


def with_beginning(text: str, beginning: int | None) -> str:
    """Lets a tokenizer prepend a token to every text that is encoded with special tokens.

    Args:
        text: the text of a `tokenizer.json`.
        beginning: the id of the token; None leaves the tokenizer unchanged.
    """
    if beginning is None:
        return text
    library_tokenizer = parse_tokenizer_json(text, "the model")
    token = library_tokenizer.id_to_token(beginning)
    if token is None:
        raise DataError(f"the tokenizer has no token {beginning}, which was to begin all texts.")
    library_tokenizer.post_processor = processors.TemplateProcessing(
        single=[token, "$A"], special_tokens=[(token, beginning)]
    )
    return library_tokenizer.to_str(pretty=True)
