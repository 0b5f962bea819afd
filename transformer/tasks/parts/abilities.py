"""What some tasks, and some data, can do besides training: protocols that scripts ask for."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np

from transformer.data.tokenizers.protocol import SentenceTokenizer, TextTokenizer, Tokenizer
from transformer.decoding.translate import Beam
from transformer.ops.logits import Sampling
from transformer.sections import plugins
from transformer.tasks.parts.models import Model
from transformer.types import Json, Params, Scalars


class Prediction(NamedTuple):
    """A model's answer to one line of input.

    Attributes:
        text: the answer for people and pipes, its parts separated by tabs.
        details: the answer with more details, for JSON.
        cut: a message that says what was too long and cut; empty if all was read.
    """

    text: str
    details: Json
    cut: str = ""


@runtime_checkable
class Predicts(Protocol):
    """A task whose models answer lines of text."""

    def predict(
        self, model: Model, params: Params, workdir: Path, lines: Iterable[str]
    ) -> Iterator[Prediction]:
        """An answer to each line, in order.

        Raises:
            DataError: for a line that cannot be answered, by its number.
        """


@runtime_checkable
class Tokenized(Protocol):
    """A task whose runs have a tokenizer."""

    def load_tokenizer(self, workdir: Path) -> Tokenizer:
        """The tokenizer of a run.

        Raises:
            WorkdirError: if there is none.
        """


@runtime_checkable
class Continues(Tokenized, Protocol):
    """A task whose models continue a text.

    Attributes:
        stop: the string before which a text ends; empty for none.
        stop_ids: tokens that end a text.
        begin: the token that begins an empty prompt; None for none.
        max_new_tokens: how many tokens are added; None leaves it to the caller.
    """

    stop: str
    stop_ids: tuple[int, ...]
    begin: int | None
    max_new_tokens: int | None

    def load_tokenizer(self, workdir: Path) -> TextTokenizer:
        """The tokenizer of a run; see `Tokenized`."""

    def sampling(self) -> Sampling:
        """How tokens are chosen."""


@runtime_checkable
class Rewrites(Tokenized, Protocol):
    """A task whose models write a text for each text, by a search."""

    @property
    def max_length(self) -> int:
        """The most tokens of a source, its end included."""

    def load_tokenizer(self, workdir: Path) -> SentenceTokenizer:
        """The tokenizer of a run; see `Tokenized`."""

    def beam(self, **changes: object) -> Beam:
        """The search that the config asks for, with other values for some of its fields."""

    def encode_sources(
        self, tokenizer: SentenceTokenizer, lines: Sequence[str], first: int = 0
    ) -> tuple[list[np.ndarray], int]:
        """Token ids of lines (the first has the number `first`), and how many were cut."""


@runtime_checkable
class FindsNeighbors(Protocol):
    """Data that can judge vectors by the classes of their nearest neighbours."""

    def neighbor_scores(self, model: Model, params: Params, count: int) -> Scalars:
        """How well the nearest training examples predict the classes of the others."""


@runtime_checkable
class FixesDimensions(Protocol):
    """A task whose data fix the model's dimensions exactly: larger ones are refused, too."""

    EXACT_DIMENSIONS: ClassVar[tuple[str, ...]]


@runtime_checkable
class ChecksFit(Protocol):
    """Data with which a model must agree in more than dimensions."""

    def check_fit(self, model: Model) -> None:
        """Refuses a model that would misread the data.

        Raises:
            ConfigError: naming the field and what to do.
        """


@runtime_checkable
class NamesOutputs(Protocol):
    """Data for models with named outputs."""

    def output_names(self) -> tuple[str, ...]:
        """The names, in the order of the outputs."""


@runtime_checkable
class Noted(Protocol):
    """Data of which something was left out or changed."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences that say what."""


def names_of(package: ModuleType, protocol: type) -> list[str]:
    """The names of the models or tasks that implement a protocol with default fields.

    Args:
        package: `transformer.models` or `transformer.tasks`.
        protocol: a runtime-checkable protocol.
    """
    return [name for name, kind in plugins(package, "name") if isinstance(kind(), protocol)]
