"""The interface of a published family: what its file defines and what it receives.

A file in `interop/families/` has a tuple `FAMILIES`. Each `Family` in it defines everything about
one published architecture: its names, how to read and write weights and config, the run that an
import creates, and the side files. A new family needs no edit elsewhere.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

from transformer.data.tokenizers.protocol import Tokenizer
from transformer.interop.layout import Entry, Shape
from transformer.interop.side_files import CONFIG, SideFile, SideFiles


@runtime_checkable
class Stored(Protocol):
    """Arrays in files, by name; each is read on access."""

    def __getitem__(self, name: str, /) -> np.ndarray:
        """Reads one array."""
        ...

    def __iter__(self) -> Iterator[str]:
        """The names."""
        ...

    def shape(self, name: str, /) -> Shape:
        """The shape of an array, without reading the array."""
        ...


class Source(NamedTuple):
    """An opened checkpoint of somebody else's model.

    Attributes:
        where: the folder or file, for messages.
        files: the side files, as the library `transformers` writes them.
        arrays: the arrays, by the names of that library.
        tokenizer: the text of a `tokenizer.json` that was given or is inside the file; None if it
            must be read from side files.
        writing: fields of `config.task` about generation; empty if side files have them.
    """

    where: Path
    files: SideFiles
    arrays: Stored
    tokenizer: str | None = None
    writing: Mapping[str, Any] = MappingProxyType({})

    @property
    def config(self) -> SideFile:
        """The content of `config.json`."""
        return self.files[CONFIG]


class Head(NamedTuple):
    """The job of a checkpoint.

    Attributes:
        job: the name of the task that can train the model further.
        outputs: names of the outputs; None takes those of `id2label` in the config.
        preparation: fields of `config.task` about the preparation of inputs, as far as known from
            the files.
    """

    job: str
    outputs: tuple[str, ...] | None
    preparation: Mapping[str, Any] = MappingProxyType({})


class RunParts(NamedTuple):
    """Everything in a run except its parameters.

    Attributes:
        task: fields of `config.task`; its name is the job of the checkpoint.
        tokenizer: the tokenizer of the run; None if there is no text.
        files: text of further files of the run, by name.
        model: fields of `config.model` that side files decide.
    """

    task: Mapping[str, Any]
    tokenizer: Tokenizer | None = None
    files: Mapping[str, str] = MappingProxyType({})
    model: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Trained:
    """One of our runs, to be exported.

    Attributes:
        job: the name of its task.
        task: the task; its fields depend on the job.
        model: the model.
        paths: the paths of its parameters.
        labels: names of the outputs; empty for none.
        workdir: the run folder.
    """

    job: str
    task: Any
    model: Any
    paths: Set[str] = frozenset()
    labels: tuple[str, ...] = ()
    workdir: Path = Path()

    @functools.cached_property
    def tokenizer(self) -> Any:
        """The tokenizer of a text run; read once."""
        return self.task.load_tokenizer(self.workdir)


class Family(NamedTuple):
    """One published architecture.

    Attributes:
        kinds: values of `model_type` in `config.json`.
        name: the name of our model, as in `config.model.name`.
        model: the class of our model.
        fields: maps `config.json`, its path for messages, and the shapes of all arrays to fields of
            the model; raises DataError for what our model does not support.
        entries: all parameters that the model can have, including heads.
        head: maps the side files and the paths that were read to the job of the checkpoint.
        run: maps the source, what was read from it, and the requested row length (None takes the
            default) to the parts of the run; raises DataError for unusable side files.
        config: maps one of our runs to `config.json`; raises ConfigError for what the published
            model does not support.
        beside: writes the side files of one of our runs to a folder; returns sentences about what
            the run does but the folder does not.
        suits: whether this family exports a given model, if several families have its class.
        heads: the first path components of heads, each of which a checkpoint has or lacks.
        canonical: maps a name in a file to the one in `entries`; None for what is no parameter.
        exported: maps a name in `entries`, the model and the job to the name in exported files.
        copies: arrays that some files hold twice, mapped to the original.
        stand_ins: arrays that files may leave out, mapped to the array used instead.
        not_ours: pattern of known names that our model does not have.
        unnamed: whether a config without `model_type` belongs to this family.
    """

    kinds: tuple[str, ...]
    name: str
    model: Callable[..., Any]
    fields: Callable[[SideFile, Path, dict[str, Shape]], dict[str, Any]]
    entries: Callable[[Any], list[Entry]]
    head: Callable[[SideFiles, Set[str]], Head]
    run: Callable[[Source, "Published", int | None], RunParts]
    config: Callable[[Trained], dict[str, Any]]
    beside: Callable[[Trained, Path], list[str]]
    suits: Callable[[Any], bool] = lambda model: True
    heads: tuple[str, ...] = ()
    canonical: Callable[[str], str | None] = str
    exported: Callable[[str, Any, str], str] = lambda name, model, job: name
    copies: Callable[[Any], dict[str, str]] = lambda model: {}
    stand_ins: Callable[[Any], dict[str, str]] = lambda model: {}
    not_ours: str | None = None
    unnamed: Callable[[SideFile], bool] = lambda config: False


class Published(NamedTuple):
    """A published checkpoint that was read.

    Attributes:
        family: the family that reads and writes it.
        model: fields of `config.model`.
        job: see `Head`.
        labels: names of the head's outputs; empty without a head.
        params: parameters by path.
        unused: names of arrays that our model does not have.
        preparation: see `Head`.
        files: the side files, and a record of which keys were used.
    """

    family: Family
    model: dict[str, Any]
    job: str
    labels: tuple[str, ...]
    params: dict[str, jax.Array]
    unused: list[str]
    preparation: Mapping[str, Any]
    files: SideFiles


def label_names(labels: tuple[str, ...]) -> dict[str, Any]:
    """The names of outputs in the form of `config.json`."""
    if not labels:
        return {}
    return {
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
    }
