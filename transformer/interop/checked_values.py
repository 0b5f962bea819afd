"""Values in files from elsewhere: of the kind and in the range that is asked for, or refused.

Nothing is converted: a text of digits is no number, 2.0 no whole number, and true no 1.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from transformer.data.reading import bounds
from transformer.data.reading.json_text import shown
from transformer.errors import DataError

# What programs compute with.
LARGEST = float(np.finfo(np.float32).max)
SMALLEST = float(np.finfo(np.float32).tiny)
# Of a file, in all usual file systems.
_NAME_BYTES = 255


def refuse(where: Path, key: str, value: Any, expected: str) -> NoReturn:
    """Refuses a value in the one wording for all of them.

    Raises:
        DataError: naming file and key.
    """
    raise DataError(f"{where}: {key} is {shown(value)}, where {expected} is expected.")


def whole(
    where: Path,
    key: str,
    value: Any,
    *,
    least: int = 1,
    most: int = bounds.SIZE,
    also: str = "",
) -> int:
    """A whole number.

    Args:
        where: the file, for messages.
        key: it stands under.
        value: what stands there.
        least: it may be.
        most: it may be.
        also: what else is expected of it, for messages.

    Raises:
        DataError: if it is none, or out of range.
    """
    if type(value) is not int or not least <= value <= most:
        refuse(where, key, value, f"a whole number from {least} to {most}{also}")
    return value


def without_fraction(value: Any) -> Any:
    """A float that is a whole number as one, for keys that others write as floats, too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def number(
    where: Path, key: str, value: Any, *, least: float = -LARGEST, most: float = LARGEST
) -> float:
    """A finite number, as float32 can hold it; 0, where that is in range, or no smaller one.

    Raises:
        DataError: if it is none, or out of range.
    """
    # Compared before it is converted: whole numbers may be too large for a float.
    if type(value) not in (int, float) or not least <= value <= most:
        refuse(where, key, value, f"a number from {least:g} to {most:g}")
    if value and abs(value) < SMALLEST:
        refuse(where, key, value, f"0 or a number of at least {SMALLEST:g}")
    return float(value)


def positive(where: Path, key: str, value: Any) -> float:
    """A finite number above 0.

    Raises:
        DataError: if it is none.
    """
    return number(where, key, value, least=SMALLEST)


def token(where: Path, key: str, value: Any) -> int:
    """The id of a token.

    Raises:
        DataError: if it is none.
    """
    return whole(where, key, value, least=0, most=bounds.TOKENS - 1, also=", the id of a token,")


def flag(where: Path, key: str, value: Any) -> bool:
    """True or false; null is false, as it is for those who write it.

    Raises:
        DataError: if it is none of them.
    """
    if value is not None and type(value) is not bool:
        refuse(where, key, value, "true or false")
    return bool(value)


def text(where: Path, key: str, value: Any) -> str:
    """A text.

    Raises:
        DataError: if it is none.
    """
    if type(value) is not str:
        refuse(where, key, value, "a text")
    return value


def one_of(where: Path, key: str, value: Any, known: Any) -> str:
    """One of several texts.

    Raises:
        DataError: if it is none of them; they are listed.
    """
    if type(value) is not str or value not in known:
        refuse(where, key, value, f"one of {', '.join(known)}")
    return value


def several(where: Path, key: str, value: Any, each: Callable[[Path, str, Any], Any]) -> list[Any]:
    """A list of values, each of which is checked.

    Args:
        where: the file, for messages.
        key: the list stands under.
        value: what stands there.
        each: checks one.

    Raises:
        DataError: if it is no list, or one of them is not what it should be.
    """
    if type(value) is not list:
        refuse(where, key, value, "a list")
    return [each(where, key, one) for one in value]


def is_inside(name: str) -> bool:
    """Whether a name in a file leads to nothing outside of the file's folder, and can be one."""
    parts = Path(name).parts
    short = all(len(part.encode("utf-8")) <= _NAME_BYTES for part in parts)
    return not (Path(name).is_absolute() or ".." in parts or "\0" in name) and short


def finite(value: Any) -> bool:
    """Whether something is a finite number that float32 holds."""
    return type(value) in (int, float) and -LARGEST <= value <= LARGEST and not math.isnan(value)
