"""What configs are checked for again and again, each with one wording."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from transformer.errors import ConfigError

# Programs compute in float32: larger numbers are infinite there, and smaller ones 0.
_LARGEST, _SMALLEST = (float(getattr(np.finfo(np.float32), end)) for end in ("max", "tiny"))


def require_at_least(section: str, owner: Any, **least: int) -> None:
    """Refuses fields of `owner` below their minimum.

    Raises:
        ConfigError: naming the first of them.
    """
    for field, minimum in least.items():
        value = getattr(owner, field)
        if value < minimum:
            raise ConfigError(f"config.{section}.{field} is {value}: at least {minimum}.")


def require_fraction(section: str, owner: Any, *fields: str) -> None:
    """Refuses fields of `owner` outside of [0, 1), also as float32 has them.

    Raises:
        ConfigError: naming the first of them.
    """
    for field in fields:
        value = getattr(owner, field)
        if not (value == 0 or _SMALLEST <= value < 1.0) or np.float32(value) == 1.0:
            raise ConfigError(f"config.{section}.{field} is {value}: 0 or more, below 1.")


def require_positive(section: str, owner: Any, *fields: str) -> None:
    """Refuses fields of `owner` that are not above 0, or that float32 does not hold.

    Raises:
        ConfigError: naming the first of them.
    """
    for field in fields:
        value = getattr(owner, field)
        if not _SMALLEST <= value <= _LARGEST:
            raise ConfigError(
                f"config.{section}.{field} is {value}: above 0, and a number that float32 holds."
            )


def require_weight(section: str, owner: Any, *fields: str) -> None:
    """Refuses fields of `owner` below 0, or that float32 does not hold.

    Raises:
        ConfigError: naming the first of them.
    """
    for field in fields:
        value = getattr(owner, field)
        if not (value == 0 or _SMALLEST <= value <= _LARGEST):
            raise ConfigError(
                f"config.{section}.{field} is {value}: 0 or more, and a number that float32 holds."
            )


def require_choice(section: str, owner: Any, **known: Iterable[str]) -> None:
    """Refuses fields of `owner` that are none of the known names.

    Raises:
        ConfigError: naming the first of them and what it may be.
    """
    for field, names in known.items():
        value = getattr(owner, field)
        if value not in names:
            raise ConfigError(
                f"config.{section}.{field} is {value!r}: choose from {', '.join(sorted(names))}."
            )
