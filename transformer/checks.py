"""What configs are checked for again and again, each with one wording."""

from collections.abc import Iterable
from typing import Any

from transformer.errors import ConfigError


def require_at_least(section: str, owner: Any, **least: int) -> None:
    """Refuses fields of `owner` below their minimum.

    Raises:
        ConfigError: naming the first of them.
    """
    for field, minimum in least.items():
        value = getattr(owner, field)
        if value < minimum:
            raise ConfigError(f"config.{section}.{field} is {value}: at least {minimum}.")


def require_seed(section: str, owner: Any, field: str) -> None:
    """Refuses a seed that no random key can be made of: of 2**32 and more the rest would be lost.

    Raises:
        ConfigError: naming the field.
    """
    value = getattr(owner, field)
    if not 0 <= value < 2**32:
        raise ConfigError(f"config.{section}.{field} is {value}: from 0 to 4294967295.")


def require_fraction(section: str, owner: Any, *fields: str) -> None:
    """Refuses fields of `owner` outside of [0, 1).

    Raises:
        ConfigError: naming the first of them.
    """
    for field in fields:
        value = getattr(owner, field)
        if not 0.0 <= value < 1.0:
            raise ConfigError(f"config.{section}.{field} is {value}: 0 or more, below 1.")


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
