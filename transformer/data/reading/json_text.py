"""Parses JSON, in one place.

Refuses what Python's own parser accepts beyond JSON, and what no reader expects: NaN and infinite
numbers, repeated keys with different values, and very deep nesting.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from transformer.data.reading import bounds
from transformer.data.reading.content import read_bounded
from transformer.data.reading.text import SURROGATES, decode_text, read_text
from transformer.errors import DataError
from transformer.types import Json


def loads(text: str) -> object:
    """The value of a JSON text of any length.

    Raises:
        ValueError: if it is no JSON, or goes beyond `bounds`.
    """
    try:
        content = _DECODER.decode(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    # Most texts have too few brackets for that.
    if text.count("[") + text.count("{") > bounds.DEPTH:
        _require_flat(content)
    return content


def parse_json(text: str, where: str | Path) -> object:
    """The value of the JSON text of a published model.

    Args:
        text: the text of the file.
        where: its origin, for messages.

    Raises:
        DataError: if it is no JSON, goes beyond `bounds`, or has half of a surrogate pair.
    """
    if len(text) > bounds.TEXT_BYTES:
        raise DataError(f"{where} has {len(text):,} characters: at most {bounds.TEXT_BYTES:,}.")
    try:
        content = loads(text)
    except ValueError as error:
        raise DataError(f"{where} is not JSON: {error}.") from None
    if "\\ud" in text or "\\uD" in text:
        found = SURROGATES.search(json.dumps(content, ensure_ascii=False))
        if found:
            raise DataError(f"{where} has half of a surrogate pair, {found.group()!r}.")
    return content


def read_json_file(path: str | Path) -> object:
    """The value of a JSON file; UTF-8, not compressed.

    Raises:
        DataError: if it is missing, is no JSON, or goes beyond `bounds`.
    """
    return parse_json(decode_text(read_bounded(path), str(path)), path)


def json_lines(path: str | Path, expected: str) -> Iterator[tuple[str, Json]]:
    """The objects in a file of JSON lines, each with its place in words.

    Args:
        path: a UTF-8 text file, plain or gzip; its blank lines are skipped.
        expected: what each object holds, for messages.

    Raises:
        DataError: if the file cannot be read, or a line is no JSON object.
    """
    # Only line feeds end a line: other separators of Unicode may stand inside of strings.
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            content = loads(line)
        except json.JSONDecodeError as error:
            problem = f"{error.msg} at character {error.colno}"
            raise DataError(
                f"{where} is not JSON: {problem}. Each line must be one JSON object with "
                f"{expected}."
            ) from None
        except ValueError as error:
            raise DataError(f"{where} is JSON that cannot be read: {error}.") from None
        if not isinstance(content, dict):
            raise DataError(
                f"{where} holds {kind_of(content)}: expected a JSON object with {expected}."
            )
        yield where, content


def kind_of(value: object) -> str:
    """What a JSON value is, for messages."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    kinds = {dict: "an object", list: "a list", str: "a string", int: "a whole number"}
    return kinds.get(type(value), "a number")


def shown(value: object, most: int = 60) -> str:
    """A value for a message, shortened if it is long."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}..."


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        for key, value in pairs:
            if repr(found[key]) != repr(value):
                raise ValueError(f"it has the key {shown(key)} twice, with two values")
    return found


def _no_number(text: str) -> float:
    raise ValueError(f"it has {text}, which is no number")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"it has the number {shown(text)}, which is too large")
    return value


def _whole(text: str) -> int:
    if len(text) > bounds.DIGITS:
        raise ValueError(f"it has a whole number of {len(text)} digits: at most {bounds.DIGITS}")
    return int(text)


def _require_flat(content: object) -> None:
    """Refuses lists and objects that are nested too deeply."""
    level, depth = [content], 0
    while level := [one for one in level if isinstance(one, list | dict)]:
        depth += 1
        if depth > bounds.DEPTH:
            raise ValueError(_TOO_DEEP)
        level = [part for one in level for part in (one.values() if isinstance(one, dict) else one)]


_TOO_DEEP = f"it has more than {bounds.DEPTH} brackets within each other"
_DECODER = json.JSONDecoder(
    parse_constant=_no_number,
    parse_float=_finite,
    parse_int=_whole,
    object_pairs_hook=_object,
)
