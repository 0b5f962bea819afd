"""Which tokenizer a config or a folder means: the files of `kinds/` say what there is."""

import functools
import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from transformer.data.tokenizers import kinds
from transformer.data.tokenizers.protocol import Kind
from transformer.errors import ConfigError, DataError, WorkdirError
from transformer.sections import plugin_names

T = TypeVar("T")


def make_tokenizer(
    role: type[T], value: str, texts: Iterable[str], *, vocab_size: int, lowercase: bool = False
) -> T:
    """A new tokenizer, or one that is read from a file.

    Args:
        role: what it is used for; see `Kind`.
        value: `config.task.tokenizer`: the name of a way to make one, or a path.
        texts: what a vocabulary is made from. The same texts give the same vocabulary.
        vocab_size: tokens of a vocabulary that is trained, special ones included; there are fewer
            if the texts do not have so many.
        lowercase: whether capitals become small letters and accents are dropped, where a kind lets
            one choose.

    Raises:
        ConfigError: if `value` means no tokenizer of this role, or the vocabulary is too small.
        DataError: if a file is missing, damaged, or cannot be used.
        MissingDependencyError: if a file needs a library that is not installed.
    """
    found = _kinds(role)
    for kind in found:
        if value in kind.values or value.endswith(tuple(kind.files)):
            return kind.make(value, texts, vocab_size, lowercase)
    values = ", ".join(value for kind in found for value in kind.values)
    files = " or of ".join(what for kind in found for what in kind.files.values())
    raise ConfigError(
        f"config.task.tokenizer is {value!r}: choose from {values}, or give the path of {files}."
    )


def load_tokenizer(role: type[T], folder: Path) -> T | None:
    """The tokenizer that was saved in a folder; None if there is none.

    Raises:
        DataError: if its file is damaged, or of another role.
        MissingDependencyError: if it needs a library that is not installed.
    """
    there = [kind for kind in _kinds(role) if (folder / kind.kept_in).is_file()]
    for kind in there:
        tokenizer = kind.load(folder)
        if tokenizer is not None:
            return tokenizer
    if there:
        raise DataError(
            f"{folder / there[0].kept_in} holds a tokenizer that this task cannot use: give one of "
            f"the kind that config.task.tokenizer can be."
        )
    return None


def require_tokenizer(role: type[T], workdir: Path) -> T:
    """The tokenizer of a run.

    Raises:
        WorkdirError: if there is none.
        DataError: as `load_tokenizer`.
        MissingDependencyError: as `load_tokenizer`.
    """
    tokenizer = load_tokenizer(role, workdir)
    if tokenizer is None:
        names = list(dict.fromkeys(kind.kept_in for kind in _kinds(role)))
        listed = " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
        raise WorkdirError(f"{workdir} has no tokenizer: no {listed}.")
    return tokenizer


def _kinds(role: type[T]) -> "list[Kind[T]]":
    """The kinds of a role, by the names of their files."""
    return [kind for kind in _all_kinds() if kind.role is role]


@functools.cache
def _all_kinds() -> "tuple[Kind, ...]":
    modules = (importlib.import_module(f"{kinds.__name__}.{n}") for n in plugin_names(kinds))
    return tuple(module.KIND for module in modules)
