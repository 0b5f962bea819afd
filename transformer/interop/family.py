"""The interface of a published family: what its file defines and what it receives.

A file in `interop/families/` has a tuple `FAMILIES`. Each `Family` in it defines everything about
one published architecture: its names, how to read and write weights and config, the run that an
import creates, and the side files. A new family needs no edit elsewhere.
"""

import functools
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Generic, NamedTuple, Protocol, TypeVar, cast, runtime_checkable

import jax

from transformer.data.tokenizers.protocol import Tokenizer
from transformer.errors import ConfigError
from transformer.interop.layout import Entry, Shape, Stored
from transformer.interop.side_files import CONFIG, SideFile, SideFiles
from transformer.interop.tokenizers.decoders import DecoderClass
from transformer.interop.tokenizers.encoders import EncoderClass
from transformer.types import Facts, Json

# The class of a family's model.
Model = TypeVar("Model")
# The model of a run, what its export needs of the task, and the tokenizer.
Model_co = TypeVar("Model_co", covariant=True)
Task_co = TypeVar("Task_co", covariant=True)
Tokenizer_co = TypeVar("Tokenizer_co", covariant=True)


class Source(NamedTuple):
    """An opened checkpoint of somebody else's model.

    Attributes:
        where: the folder or file, for messages.
        files: the side files, as the library `transformers` writes them.
        arrays: the arrays, by the names of that library.
        tokenizer: the text of a `tokenizer.json` that was given or is inside the file; None if it
            must be read from side files.
        writing: fields of `config.task` about generation; empty if side files have them.
        vocabulary: tokens and their numbers, if no side file has them as `transformers` writes it.
    """

    where: Path
    files: SideFiles
    arrays: Stored
    tokenizer: str | None = None
    writing: Facts = MappingProxyType({})
    vocabulary: Mapping[str, int] | None = None

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
    preparation: Facts = MappingProxyType({})


class RunParts(NamedTuple):
    """Everything in a run except its parameters.

    Attributes:
        task: fields of `config.task`; its name is the job of the checkpoint.
        tokenizer: the tokenizer of the run; None if there is no text.
        files: text of further files of the run, by name.
        model: fields of `config.model` that side files decide.
    """

    task: Facts
    tokenizer: Tokenizer | None = None
    files: Mapping[str, str] = MappingProxyType({})
    model: Facts = MappingProxyType({})


@runtime_checkable
class _TextTask(Protocol[Tokenizer_co]):
    """A task of texts."""

    def load_tokenizer(self, workdir: Path) -> Tokenizer_co:
        """The tokenizer of a run."""
        ...


@dataclass(frozen=True)
class Trained(Generic[Model_co, Task_co, Tokenizer_co]):
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
    task: Task_co
    model: Model_co
    paths: Set[str] = frozenset()
    labels: tuple[str, ...] = ()
    workdir: Path = Path()

    @functools.cached_property
    def tokenizer(self) -> Tokenizer_co:
        """The tokenizer of a text run; read once."""
        return cast("_TextTask[Tokenizer_co]", self.task).load_tokenizer(self.workdir)


@dataclass(frozen=True, eq=False)
class Family(Generic[Model]):
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
        tokenizers: the classes of tokenizers that this family brings, by the names in the library.
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
    model: Callable[..., Model]
    fields: Callable[[SideFile, Path, dict[str, Shape]], Json]
    entries: Callable[[Model], list[Entry]]
    head: Callable[[SideFiles, Set[str]], Head]
    run: Callable[[Source, "Published", int | None], RunParts]
    config: Callable[[Trained], Json]
    beside: Callable[[Trained, Path], list[str]]
    tokenizers: Mapping[str, DecoderClass | EncoderClass] = field(default_factory=dict)
    suits: Callable[[Model], bool] = lambda model: True
    heads: tuple[str, ...] = ()
    canonical: Callable[[str], str | None] = str
    exported: Callable[[str, Model, str], str] = lambda name, model, job: name
    copies: Callable[[Model], dict[str, str]] = lambda model: {}
    stand_ins: Callable[[Model], dict[str, str]] = lambda model: {}
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
    model: Json
    job: str
    labels: tuple[str, ...]
    params: dict[str, jax.Array]
    unused: list[str]
    preparation: Facts
    files: SideFiles


def require_known(whose: str, **fields: tuple[object, object]) -> None:
    """Refuses fields of a model that differ from all published models of a family.

    Args:
        whose: the published models, for messages.
        **fields: the value of each field, and the value that the published models have.

    Raises:
        ConfigError: names the first such field.
    """
    for name, (value, known) in fields.items():
        if value != known:
            raise ConfigError(f"config.model.{name} is {value!r}: {whose} have {known!r}.")


def label_names(labels: tuple[str, ...]) -> dict[str, dict[str, str] | dict[str, int]]:
    """The names of outputs in the form of `config.json`."""
    if not labels:
        return {}
    return {
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
    }
