"""Finds the tokenizer of a config or a folder; the kinds are the files of `kinds/`."""

import dataclasses
import functools
import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from transformer.data.tokenizers import kinds
from transformer.data.tokenizers.protocol import Kind
from transformer.errors import ConfigError, DataError, WorkdirError
from transformer.limits import FilePath, VocabSize
from transformer.sections import plugin_names

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class TokenizerChoice:
    """The choice of a tokenizer; its fields are `config.task.tokenizer`.

    Attributes:
        kind: the name of a way to make one from the training texts, or the path of a file that
            holds one. The kinds of text models are `character`, `byte` and `bpe`; of models that
            write sentences `character` and `bpe`; of encoders `wordpiece` and `bpe`. A run that is
            initialized from another run takes that run's tokenizer.
        size: the number of tokens of a new vocabulary, special ones included; fewer if the texts do
            not have as many.
        lowercase: whether word pieces are lowercase and without accents, as in BERT's uncased
            models; None means yes. Other kinds cannot be lowercase.
    """

    kind: FilePath
    size: VocabSize = 8192
    lowercase: bool | None = None

    def make(self, role: type[T], texts: Iterable[str]) -> T:
        """A new tokenizer, or one that is read from a file.

        Args:
            role: the use of the tokenizer; see `Kind`.
            texts: what a vocabulary is made from. The same texts give the same vocabulary.

        Raises:
            ConfigError: if there is no such tokenizer of this role, or the vocabulary is too small.
            DataError: if a file is missing, damaged, or cannot be used.
            MissingDependencyError: if a file needs a library that is not installed.
        """
        found = _kinds(role)
        for kind in found:
            if self.kind in kind.values or self.kind.endswith(tuple(kind.files)):
                if self.lowercase and not self.kind.endswith(tuple(kind.lowercase)):
                    raise ConfigError(
                        f"config.task.tokenizer.lowercase is True, and a tokenizer of the kind "
                        f"{self.kind} keeps capitals: leave it out."
                    )
                return kind.make(self.kind, texts, self.size, self.lowercase is not False)
        values = ", ".join(value for kind in found for value in kind.values)
        files = " or of ".join(what for kind in found for what in kind.files.values())
        raise ConfigError(
            f"config.task.tokenizer.kind is {self.kind!r}: choose from {values}, or give the path "
            f"of {files}."
        )

    def of_run(
        self, role: type[T], folder: Path | None, texts: Iterable[str], others: Iterable[str] = ()
    ) -> T:
        """The tokenizer that a run's folder holds, or a new one.

        Args:
            role: see `make`.
            folder: the folder; None if there is none yet.
            texts: see `make`.
            others: texts to validate on, whose characters are in a vocabulary of characters, too.
        """
        found = None if folder is None else load_tokenizer(role, folder)
        if found is not None:
            return found
        return self.make(role, [*texts, *others] if self.kind == "character" else texts)


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
            f"the kind that config.task.tokenizer.kind can be."
        )
    return None


def require_tokenizer(role: type[T], workdir: Path) -> T:
    """The tokenizer of a run.

    Raises:
        WorkdirError: if there is none.
        DataError: see `load_tokenizer`.
        MissingDependencyError: see `load_tokenizer`.
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
