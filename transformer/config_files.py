"""Finds config files: in the reader's folder, or among those that come with the package."""

import difflib
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from transformer.commands import shipped_configs
from transformer.errors import ConfigError

_FLAG = re.compile(r"--?config")


def with_shipped(arguments: Sequence[str], say: Callable[[str], None]) -> list[str]:
    """A command line whose configs are those of the package where the reader has none.

    `configs/NAME.py`, `NAME.py` and `NAME` are found, each with or without a variant.

    Args:
        arguments: the whole command line.
        say: is told which file stands for another.
    """
    found = list(arguments)
    for place, (before, word) in enumerate(zip(["", *arguments], arguments, strict=False)):
        flag, equals, value = word.partition("=")
        if equals and _FLAG.fullmatch(flag):
            found[place] = f"{flag}={_shipped(value, say)}"
        elif _FLAG.fullmatch(before):
            found[place] = _shipped(word, say)
    return found


def _shipped(given: str, say: Callable[[str], None]) -> str:
    """The config that is meant, with its variant."""
    file, colon, variant = given.partition(":")
    path = Path(file)
    shipped = shipped_configs().get(path.stem)
    if shipped is None or path.parent not in (Path("configs"), Path()) or path.exists():
        return given
    if path.suffix not in ("", ".py"):
        return given
    say(f"{file} is not in this folder: this is the config of the package, {shipped}.")
    return f"{shipped}{colon}{variant}"


def missing(path: Path) -> ConfigError:
    """The message for a config file that does not exist, with one that does."""
    # Not above: this imports NumPy, and signals must be handled before.
    from transformer.fields import shown

    if path.parent.is_dir() and path.parent != Path():
        known = {each.stem: each for each in sorted(path.parent.glob("*.py"))}
    else:
        known = {name: Path("configs", each.name) for name, each in shipped_configs().items()}
    near = difflib.get_close_matches(path.stem, known, n=1)
    if near:
        hint = f"did you mean --config={known[near[0]]}?"
    else:
        hint = f"{path.parent} has {', '.join(each.name for each in known.values())}."
    return ConfigError(f"there is no config file {shown(str(path))}: {hint}")
