"""What configs and flags are checked for again and again, each with one wording."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from transformer.errors import ConfigError, WorkdirError

# Programs compute in float32: larger numbers are infinite there, and smaller ones 0.
_LARGEST, _SMALLEST = (float(getattr(np.finfo(np.float32), end)) for end in ("max", "tiny"))


def require_at_least(section: str, owner: Any, **least: int) -> None:
    """Refuses fields of `owner` below their minimum; None is not.

    Raises:
        ConfigError: naming the first of them.
    """
    for field, minimum in least.items():
        value = getattr(owner, field)
        if value is not None and value < minimum:
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
    """Refuses fields of `owner` outside of [0, 1), also as float32 has them.

    Raises:
        ConfigError: naming the first of them.
    """
    for field in fields:
        value = getattr(owner, field)
        if not (value == 0 or _SMALLEST <= value < 1.0) or np.float32(value) == 1.0:
            raise ConfigError(f"config.{section}.{field} is {value}: 0 or more, below 1.")


def require_between_0_and_1(section: str, owner: Any, *fields: str) -> None:
    """Refuses fields of `owner` that are not above 0 and below 1: neither nothing nor everything.

    Raises:
        ConfigError: naming the first of them.
    """
    for field in fields:
        value = getattr(owner, field)
        if not 0.0 < value < 1.0:
            raise ConfigError(f"config.{section}.{field} is {value}: above 0 and below 1.")


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


def require_writable_folder(path: Path, flag: str = "--workdir") -> None:
    """Refuses the path of a folder that cannot be made, or cannot be written into.

    Args:
        path: of the folder, which may be missing.
        flag: that gives it.

    Raises:
        WorkdirError: naming what stands in the way.
    """
    for place in (path.absolute(), *path.absolute().parents):
        try:
            # A link that leads nowhere is there, and nothing can be made in its place.
            place.lstat()
            place.stat()
        except NotADirectoryError:
            continue
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not place.is_symlink():
                continue
            raise WorkdirError(
                f"{place} cannot be a folder: {error.strerror}. Give another {flag}."
            ) from None
        if not place.is_dir():
            raise WorkdirError(f"{place} is a file, not a folder: give another {flag}.")
        if not os.access(place, os.W_OK | os.X_OK):
            raise WorkdirError(f"{place} cannot be written: give another {flag}.")
        return


def require_plain_path(workdir: Path) -> None:
    r"""Refuses the path of a run folder that Orbax takes for a pattern, or for another path.

    What it has saved below `runs[1]` it does not find again, and what it should save below
    `runs\1` it puts below `runs/1`.

    Raises:
        WorkdirError: naming the character.
    """
    path = workdir.absolute().as_posix()
    for character in "[*?\\":
        if character in path:
            raise WorkdirError(
                f"{path} has a {character!r}, with which checkpoints cannot be kept: give the path "
                f"of a folder without any of [ * ? \\"
            )
