"""Tokenizers that lie beside published models, as text of a `tokenizer.json`."""

from pathlib import Path
from typing import Any

from tokenizers import processors

from transformer.data.reading.json_text import parse_json, read_bounded, shown
from transformer.data.reading.text import decode_text
from transformer.data.tokenizers.library import parse_tokenizer_json
from transformer.errors import DataError


def read_tokenizer_text(path: Path) -> tuple[str, dict[str, Any]]:
    """The text of a `tokenizer.json` from elsewhere, JSON within all limits, and what it says.

    Raises:
        DataError: if it is not.
    """
    text = decode_text(read_bounded(path), str(path))
    content = parse_json(text, path)
    if not isinstance(content, dict):
        raise DataError(f"{path} is not a tokenizer.json: it holds no object.")
    return text, content


def read_lines(path: Path) -> list[str]:
    """The lines of a text file beside a model.

    Raises:
        DataError: if it is missing, too large, or no text.
    """
    return decode_text(read_bounded(path), str(path)).split("\n")


def merge_pairs(merges: Any, path: Path) -> list[tuple[str, str]]:
    """The pairs of tokens that are merged; old files write one with a space between.

    Raises:
        DataError: if one is no pair.
    """
    found = []
    for merge in merges if isinstance(merges, list) else [merges]:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not (isinstance(pair, list) and [type(part) for part in pair] == [str, str]):
            raise DataError(f"{path}: merges has {shown(merge)}, which is no pair of tokens.")
        found.append((pair[0], pair[1]))
    return found


def with_end(text: str, end: int) -> str:
    """A tokenizer that puts a token behind every text, where special tokens are asked for.

    Args:
        text: of a `tokenizer.json`; one that puts tokens around texts already is left as it is.
        end: the token.
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
    """A tokenizer that puts a token in front of every text, where special tokens are asked for.

    Args:
        text: of a `tokenizer.json`.
        beginning: the token; None leaves the tokenizer as it is.
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
