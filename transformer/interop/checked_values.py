"""Checks the type and range of values in files that others wrote.

Nothing is converted: a string of digits is not a number, 2.0 is not an integer, true is not 1.
"""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import NoReturn, TypeGuard, TypeVar

import numpy as np

from transformer.data.reading import bounds
from transformer.data.reading.json_text import shown
from transformer.errors import DataError
from transformer.limits import MOST_IDS

T = TypeVar("T")
# Programs compute in float32.
LARGEST = float(np.finfo(np.float32).max)
SMALLEST = float(np.finfo(np.float32).tiny)
# The maximum length of a file name in common file systems.
_NAME_BYTES = 255


def refuse(where: Path, key: str, value: object, expected: str) -> NoReturn:
    """Refuses a value, with the same wording for all values.

    Raises:
        DataError: names file and key.
    """
    raise DataError(f"{where}: {key} is {shown(value)}, where {expected} is expected.")


def whole(
    where: Path,
    key: str,
    value: object,
    *,
    least: int = 1,
    most: int = bounds.SIZE,
    also: str = "",
) -> int:
    """Checks a whole number.

    Args:
        where: the file, for messages.
        key: the key of the value.
        value: the value to check.
        least: the smallest valid value.
        most: the largest valid value.
        also: a further expectation, for messages.

    Raises:
        DataError: if it has another type or is out of range.
    """
    if type(value) is not int or not least <= value <= most:
        refuse(where, key, value, f"a whole number from {least} to {most}{also}")
    return value


def without_fraction(value: object) -> object:
    """Converts an integral float to an int, for keys that some files write as floats."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def number(
    where: Path, key: str, value: object, *, least: float = -LARGEST, most: float = LARGEST
) -> float:
    """Checks a finite number that is 0 or not smaller than float32's smallest normal number.

    Raises:
        DataError: if it has another type or is out of range.
    """
    # Compare before converting: an int may be too large for a float.
    if not _is_number(value) or not least <= value <= most:
        refuse(where, key, value, f"a number from {least:g} to {most:g}")
    if value and abs(value) < SMALLEST:
        refuse(where, key, value, f"0 or a number of at least {SMALLEST:g}")
    return float(value)


def positive(where: Path, key: str, value: object) -> float:
    """Checks a finite number above 0.

    Raises:
        DataError: if it is not.
    """
    return number(where, key, value, least=SMALLEST)


def token(where: Path, key: str, value: object) -> int:
    """Checks the id of a token.

    Raises:
        DataError: if it is not.
    """
    return whole(where, key, value, least=0, most=bounds.TOKENS - 1, also=", the id of a token,")


def flag(where: Path, key: str, value: object) -> bool:
    """Checks true or false; null counts as false, as in the programs that write it.

    Raises:
        DataError: if it has another type.
    """
    if value is not None and type(value) is not bool:
        refuse(where, key, value, "true or false")
    return bool(value)


def text(where: Path, key: str, value: object) -> str:
    """Checks a string.

    Raises:
        DataError: if it is not.
    """
    if type(value) is not str:
        refuse(where, key, value, "a text")
    return value


def one_of(where: Path, key: str, value: object, known: Collection[str]) -> str:
    """Checks that a value is one of several strings.

    Raises:
        DataError: if it is not; the message lists them.
    """
    if type(value) is not str or value not in known:
        refuse(where, key, value, f"one of {', '.join(known)}")
    return value


def several(
    where: Path, key: str, value: object, each: Callable[[Path, str, object], T]
) -> list[T]:
    """Checks a list and each of its values.

    Args:
        where: the file, for messages.
        key: the key of the list.
        value: the value to check.
        each: checks one value.

    Raises:
        DataError: if it is not a list, or one of its values is invalid.
    """
    if type(value) is not list:
        refuse(where, key, value, "a list")
    return [each(where, key, x) for x in value]


def token_ids(where: Path, key: str, value: object) -> tuple[int, ...]:
    """Checks one token, several, or None; gives each of them once.

    Args:
        where: the file, for messages.
        key: the key of the tokens.
        value: the value to check.

    Raises:
        DataError: if it is anything else, or if there are too many.
    """
    given = [] if value is None else value if isinstance(value, list) else [value]
    found = tuple(dict.fromkeys(several(where, key, given, token)))
    if len(found) > MOST_IDS:
        refuse(where, key, value, f"at most {MOST_IDS} different tokens")
    return found


def is_inside(name: str) -> bool:
    """Whether a name in a file is a valid path that stays inside the file's folder."""
    parts = Path(name).parts
    short = all(len(part.encode("utf-8")) <= _NAME_BYTES for part in parts)
    return not (Path(name).is_absolute() or ".." in parts or "\0" in name) and short


def finite(value: object) -> TypeGuard[float]:
    """Whether a value is a finite number in the range of float32."""
    return _is_number(value) and -LARGEST <= value <= LARGEST


def _is_number(value: object) -> TypeGuard[float]:
    return type(value) in (int, float)
