"""The interface between tasks and the training loop."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from transformer import models
from transformer.data.order import Batches
from transformer.errors import ConfigError
from transformer.tasks.parts.abilities import names_of
from transformer.tasks.parts.models import Model
from transformer.types import Batch, Json, Params, Scalars


class Losses(NamedTuple):
    """Sums over a batch, so that parts of a batch add up to the whole.

    Attributes:
        objective: the loss to minimise, summed over predictions.
        weight: the number of predictions.
        metrics: further sums; each is divided by `weight` and logged. `loss` is in nats per
            prediction.
        weights: other divisors, for metrics that are not means over predictions.
    """

    objective: Float[Array, ""]
    weight: Float[Array, ""]
    metrics: dict[str, Float[Array, ""]]
    weights: dict[str, Float[Array, ""]] = {}  # noqa: RUF012 - never changed.

    def means(self) -> dict[str, Float[Array, ""]]:
        """The metrics, each divided by its weight."""
        return {
            name: total / jnp.maximum(self.weights.get(name, self.weight), 1.0)
            for name, total in self.metrics.items()
        }


class Pace(NamedTuple):
    """The size of a step and of an epoch, on average if batches differ.

    Attributes:
        examples_per_step: examples over all hosts and microbatches.
        tokens_per_step: tokens over all hosts and microbatches; for durations in tokens and for
            tokens/s.
        examples_per_epoch: examples in one pass over the training data.
    """

    examples_per_step: float
    tokens_per_step: float
    examples_per_epoch: int


class Shown(NamedTuple):
    """The results shown after training.

    Attributes:
        text: the text for the terminal.
        scores: logged as the split `final`.
    """

    text: str
    scores: Scalars


@runtime_checkable
class Dataset(Protocol):
    """What a task has read: what it says of itself, and the batches that are made of it."""

    def describe(self) -> str:
        """Describes the data in a line or two: how much there is, what was left out."""

    def save(self, workdir: Path) -> None:
        """Writes what later scripts need besides the config (a tokenizer) into `workdir`."""

    def dimensions(self) -> dict[str, int]:
        """Fields of the model that the data determine, such as `vocab_size`."""

    def fingerprint(self) -> str:
        """Changes when the data change; begins with `tokenizer_digest` if there is a tokenizer."""

    def pace(self) -> Pace:
        """The size of steps and epochs, for durations and speeds."""

    def batch_rows(self) -> Iterable[int]:
        """The numbers of rows that batches have, over all hosts and microbatches."""

    def train_batches(self, *, seed: int, num_steps: int) -> Batches:
        """Batches by step, over all hosts; few shapes, each compiled once."""

    def validation_batches(self) -> Batches:
        """All validation batches once, over all hosts.

        A row does not count if its `valid` is 0 or, in batches without `valid`, if all of its
        `labels` are `IGNORED`.
        """


@runtime_checkable
class StandsIn(Protocol):
    """A task that knows the shapes of its batches without data."""

    def stand_in(self) -> Dataset:
        """Placeholder data with these shapes."""


# What a task trains, and what it has read.
Kind_contra = TypeVar("Kind_contra", bound=Model, contravariant=True)
Data = TypeVar("Data", bound=Dataset)


@runtime_checkable
class Task(Protocol[Kind_contra, Data]):
    """A job: what it reads, its loss and the results that it shows at the end.

    A task is a frozen dataclass of `config.task`, composed of parts that tasks share (see
    `composition.py`) and of fields of its own. The data that it reads are a separate object,
    returned by `load`.
    """

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field]]
    # Fields of the model that the data determine; `Dataset.dimensions` gives their values.
    DIMENSIONS: ClassVar[tuple[str, ...]]
    # The method of the model that uses all parameters of the job.
    entry: ClassVar[str]
    # The protocol that the models of this task implement, from `tasks/parts/models.py`.
    model_kind: ClassVar[type]

    def load(self, workdir: Path | None) -> Data:
        """Reads and prepares the data; a tokenizer in `workdir` is used rather than made anew.

        `workdir` is the run's folder, or that of the run from which it is initialized.
        """

    def load_validation(self, paths: Sequence[str], workdir: Path) -> Data:
        """Other files to validate on, read as the run in `workdir` reads its own."""

    def check_model(self, model: Kind_contra) -> None:
        """Refuses a model of the right kind that cannot do the job with this task's settings."""

    def example_inputs(self, model: Kind_contra) -> tuple:
        """Positional arguments to call `entry` with: one example, of any values."""

    def losses(
        self, model: Kind_contra, params: Params, batch: Batch, rngs: dict[str, jax.Array]
    ) -> Losses:
        """The loss of a batch; without `rngs` nothing is dropped."""

    def scores(self, model: Kind_contra, params: Params, data: Data) -> Json:
        """Scores of the validation data besides the loss: outputs compared with references."""

    def show(self, model: Kind_contra, params: Params, data: Data, workdir: Path) -> Shown:
        """Shows results after training.

        Files go into `workdir`, an empty folder: they are moved into the run folder when all are
        complete. So the text names the files without a folder.
        """


def require_fitting(task: Task, model: Model) -> None:
    """Refuses a model that does not implement the task's protocol.

    Raises:
        ConfigError: naming the model, and models that fit.
    """
    if not isinstance(model, task.model_kind):
        ours, theirs = (type(one).__module__.rpartition(".")[2] for one in (task, model))
        fitting = names_of(models, task.model_kind)
        raise ConfigError(
            f"config.model.name is {theirs}, which the task {ours} cannot train: choose from "
            f"{', '.join(fitting)}."
        )
