"""What the file of a published family says, and what is handed to it.

A file in `interop/families/` has a tuple `FAMILIES`. Each `Family` in it says everything about one
architecture as others publish it: its names, how weights and config are read and written, what a
run of it is, and what lies beside its weights. Nothing else has to be edited for a new one.
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
    """Arrays in files, by name; each is read when it is asked for."""

    def __getitem__(self, name: str, /) -> np.ndarray:
        """Reads one array."""
        ...

    def __iter__(self) -> Iterator[str]:
        """The names."""
        ...

    def shape(self, name: str, /) -> Shape:
        """The shape of an array, which is not read."""
        ...


class Source(NamedTuple):
    """A model as somebody else keeps it.

    Attributes:
        where: the folder or file, for messages.
        files: what stands beside the arrays, as the library `transformers` writes it.
        arrays: by the names that this library gives them.
        tokenizer: the text of a `tokenizer.json` that was given or is inside the file; None where
            side files are to be read.
        writing: fields of `config.task` that say how it writes; empty where side files say it.
    """

    where: Path
    files: SideFiles
    arrays: Stored
    tokenizer: str | None = None
    writing: Mapping[str, Any] = MappingProxyType({})

    @property
    def config(self) -> SideFile:
        """What `config.json` says."""
        return self.files[CONFIG]


class Head(NamedTuple):
    """What a checkpoint is for.

    Attributes:
        job: the name of the task that can train the model further.
        outputs: names of the outputs; None takes those of `id2label` in the config.
        preparation: fields of `config.task` that say how inputs are prepared, as far as the files
            say.
    """

    job: str
    outputs: tuple[str, ...] | None
    preparation: Mapping[str, Any] = MappingProxyType({})


class Published(NamedTuple):
    """A published checkpoint that was read.

    Attributes:
        family: what can read and write it.
        model: fields of `config.model`.
        job: see `Head`.
        labels: names of the head's outputs; empty without a head of its own.
        params: parameters by path.
        unused: names of arrays that have no place in our model.
        preparation: see `Head`.
        files: what stood beside the arrays, and what became of it.
    """

    family: "Family"
    model: dict[str, Any]
    job: str
    labels: tuple[str, ...]
    params: dict[str, jax.Array]
    unused: list[str]
    preparation: Mapping[str, Any]
    files: SideFiles


class RunParts(NamedTuple):
    """What a run has beside its parameters.

    Attributes:
        task: fields of `config.task`; its name is the job of what was read.
        tokenizer: of the run; None where there is no text.
        files: further files of the run, their text by name.
        model: fields of `config.model` that side files decide.
    """

    task: Mapping[str, Any]
    tokenizer: Tokenizer | None = None
    files: Mapping[str, str] = MappingProxyType({})
    model: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Trained:
    """A run of ours that is to be published.

    Attributes:
        job: the name of its task.
        task: the task; which fields it has depends on the job.
        model: the model.
        paths: of its parameters.
        labels: names of the outputs; empty for none.
        workdir: of the run.
    """

    job: str
    task: Any
    model: Any
    paths: Set[str] = frozenset()
    labels: tuple[str, ...] = ()
    workdir: Path = Path()

    @functools.cached_property
    def tokenizer(self) -> Any:
        """The tokenizer of a run whose data are texts; read once."""
        return self.task.load_tokenizer(self.workdir)


class Family(NamedTuple):
    """One architecture as others publish it.

    Attributes:
        kinds: values of `model_type` in `config.json`.
        name: our model, as in `config.model.name`.
        model: its class.
        fields: `config.json`, its place for messages, and the shapes of all arrays, to fields of
            the model; raises DataError for what our model does not do.
        entries: all parameters that the model can have, heads included.
        head: the side files and the paths that were read to what it is for.
        run: what was opened, what was read of it, and the longest row that is asked for (None takes
            what is usual), to the run it becomes; raises DataError for side files that cannot be
            used.
        config: a run of ours to `config.json`; raises ConfigError for what theirs does not do.
        beside: writes what lies beside the weights of a run of ours into a folder; returns what the
            run does and the folder does not, in sentences.
        suits: whether it is the one that publishes a model of ours, where several have its class.
        heads: what stands first in the paths of heads, each of which a checkpoint has or lacks.
        canonical: a name in a file to the one in `entries`; None for what is no parameter.
        exported: a name in `entries`, the model and the job to the name in files that are written.
        copies: arrays that some files hold twice, by name: the original.
        stand_ins: arrays that files may leave out, by name: the one that is taken instead.
        not_ours: pattern of names that are known and have no place in our model.
        unnamed: whether a config without `model_type` is of this family.
    """

    kinds: tuple[str, ...]
    name: str
    model: Callable[..., Any]
    fields: Callable[[SideFile, Path, dict[str, Shape]], dict[str, Any]]
    entries: Callable[[Any], list[Entry]]
    head: Callable[[SideFiles, Set[str]], Head]
    run: Callable[[Source, Published, int | None], RunParts]
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


def label_names(labels: tuple[str, ...]) -> dict[str, Any]:
    """Names of outputs as `config.json` has them."""
    if not labels:
        return {}
    return {
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
    }
