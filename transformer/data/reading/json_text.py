"""Parses JSON from files of strangers, in one place.

Refuses what Python's own parser accepts beyond JSON, and what no reader expects: NaN and infinite
numbers, repeated keys, halves of surrogate pairs, and very deep nesting.
"""

import json
import re
from pathlib import Path
from typing import Any

from transformer.data.reading import bounds
from transformer.data.reading.text import SURROGATES, decode_text
from transformer.errors import DataError

# A text in quotation marks, or a bracket.
_BRACKETS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|([\[{])|([\]}])')


def parse_json(text: str, where: str | Path) -> Any:
    """The value of a JSON text.

    Args:
        text: of the file.
        where: its origin, for messages.

    Raises:
        DataError: if it is no JSON, or goes beyond `bounds`.
    """
    if len(text) > bounds.TEXT_BYTES:
        raise DataError(f"{where} has {len(text):,} characters: at most {bounds.TEXT_BYTES:,}.")
    try:
        content = json.loads(
            text,
            parse_constant=_no_number,
            parse_float=_finite,
            parse_int=_whole,
            object_pairs_hook=_object,
        )
    except RecursionError:
        raise _too_deep(where) from None
    except ValueError as error:
        raise DataError(f"{where} is not JSON: {error}") from None
    # In parsed JSON every string is closed, so this visits each character once.
    if text.count("[") + text.count("{") > bounds.DEPTH and _depth(text) > bounds.DEPTH:
        raise _too_deep(where)
    if "\\ud" in text or "\\uD" in text:
        found = SURROGATES.search(json.dumps(content, ensure_ascii=False))
        if found:
            raise DataError(f"{where} has half of a surrogate pair, {found.group()!r}.")
    return content


def read_json_file(path: str | Path) -> Any:
    """The value of a JSON file; UTF-8, not compressed.

    Raises:
        DataError: if it is missing, is no JSON, or goes beyond `bounds`.
    """
    return parse_json(decode_text(read_bounded(path), str(path)), path)


def read_bounded(path: str | Path, most: int = bounds.TEXT_BYTES) -> bytes:
    """The content of a file, refused if it is larger than the limit.

    Raises:
        DataError: if it is missing, no file, or larger.
    """
    path = Path(path)
    try:
        # A device or a pipe has no end.
        if path.exists() and not path.is_file():
            raise DataError(f"{path} is no file.")
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    if len(content) > most:
        raise DataError(f"{path} has more than {most:,} bytes, which is the most that is read.")
    return content


def shown(value: Any, most: int = 60) -> str:
    """A value for a message, shortened if it is long."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}..."


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        for key, value in pairs:
            if repr(found[key]) != repr(value):
                raise ValueError(f"it has the key {shown(key)} twice, with two values.")
    return found


def _no_number(text: str) -> float:
    raise ValueError(f"it has {text}, which is no number there.")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"it has the number {shown(text)}, which is beyond all that is computed.")
    return value


def _whole(text: str) -> int:
    if len(text) > bounds.DIGITS:
        raise ValueError(f"it has a whole number of {len(text)} digits: at most {bounds.DIGITS}.")
    return int(text)


def _depth(text: str) -> int:
    depth = deepest = 0
    for found in _BRACKETS.finditer(text):
        if found.lastindex is not None:
            depth += 1 if found.lastindex == 1 else -1
            deepest = max(deepest, depth)
    return deepest


def _too_deep(where: str | Path) -> DataError:
    return DataError(f"{where} has more than {bounds.DEPTH} brackets within each other.")
