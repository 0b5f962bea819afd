"""The interface between tasks and the training loop."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from transformer import models
from transformer.data.order import Batches
from transformer.errors import ConfigError, WorkdirError
from transformer.nn.mixture import LOSSES
from transformer.ops.logits import Sampling
from transformer.ops.losses import TokenLosses, chunked_cross_entropy, cross_entropy
from transformer.sections import plugins
from transformer.traced import Number, is_zero


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
    scores: dict[str, float]


class Prediction(NamedTuple):
    """A model's answer to one line of input.

    Attributes:
        text: the answer for people and pipes, its parts separated by tabs.
        details: the answer with more details, for JSON.
        cut: a message that says what was too long and cut; empty if all was read.
    """

    text: str
    details: dict[str, Any]
    cut: str = ""


@runtime_checkable
class Predicts(Protocol):
    """A task whose models answer lines of text."""

    def predict(
        self, model: Any, params: Any, workdir: Path, lines: Iterable[str]
    ) -> Iterator[Prediction]:
        """An answer to each line, in order.

        Raises:
            DataError: for a line that cannot be answered, by its number.
        """
        ...


@runtime_checkable
class Tokenized(Protocol):
    """A task whose runs have a tokenizer."""

    def load_tokenizer(self, workdir: Path) -> Any:
        """The tokenizer of a run."""
        ...


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

    def sampling(self) -> Sampling:
        """How tokens are chosen."""
        ...


@runtime_checkable
class Rewrites(Tokenized, Protocol):
    """A task whose models write a text for each text, by a search.

    Attributes:
        max_length: the most tokens of a source, its end included.
        beam_size: the number of hypotheses that are kept.
    """

    max_length: int
    beam_size: int

    def beam(self, **changes: Any) -> Any:
        """The search that the config asks for, with other values for some of its fields."""
        ...

    def encode_sources(self, tokenizer: Any, lines: Sequence[str], first: int) -> Any:
        """Token ids of lines (the first has the number `first`), and how many were cut."""
        ...


@runtime_checkable
class FindsNeighbors(Protocol):
    """A task that can judge vectors by the classes of their nearest neighbours."""

    def neighbor_scores(self, model: Any, params: Any, data: Any, count: int) -> dict[str, float]:
        """How well the nearest training examples predict the classes of the others."""
        ...


@runtime_checkable
class Noted(Protocol):
    """Data of which something was left out or changed.

    Attributes:
        notes: sentences that say what.
    """

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences that say what."""
        ...


def names_of(package: ModuleType, protocol: type) -> list[str]:
    """The names of the models or tasks that implement a protocol with default fields.

    Args:
        package: `transformer.models` or `transformer.tasks`.
        protocol: a runtime-checkable protocol.
    """
    return [name for name, kind in plugins(package, "name") if isinstance(kind(), protocol)]


def require_fitting(task: "Task", model: Any) -> None:
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


def tokenizer_digest(tokenizer: str) -> str:
    """A short name for exactly this tokenizer, given as text."""
    return hashlib.sha256(tokenizer.encode()).hexdigest()[:32]


def require_tokenizer_of(fingerprint: str, tokenizer: str, workdir: Path) -> None:
    """Refuses a tokenizer, given as text, other than that of a checkpoint's data.

    Raises:
        WorkdirError: if the tokenizers differ.
    """
    if not fingerprint.startswith(tokenizer_digest(tokenizer)):
        raise WorkdirError(
            f"the tokenizer in {workdir} is not the one its checkpoints were trained with: put "
            f"that one back."
        )


def vocabulary_losses(
    module: Any,
    features: Float[Array, "B T D"],
    labels: Int[Array, "B T"],
    chunk: int,
    **terms: Number,
) -> TokenLosses:
    """Cross-entropy of a model's output layer, whole or in chunks of the vocabulary.

    Args:
        module: a bound model with `logits` and `output_layer`.
        features: the input of the output layer.
        labels: token ids, or `IGNORED`.
        chunk: how many tokens of the vocabulary are scored at once; 0 means all.
        **terms: `label_smoothing` and `z_loss`; see `ops.losses.cross_entropy`.
    """
    if not chunk:
        return cross_entropy(module.logits(features), labels, **terms)
    kernel, bias = module.output_layer()
    kernel = kernel.astype(features.dtype)
    cap = module.output_cap() if hasattr(module, "output_cap") else None
    return chunked_cross_entropy(
        features, kernel, labels, bias, chunk_size=chunk, logit_cap=cap, **terms
    )


def auxiliary_losses(collected: Any) -> dict[str, Float[Array, ""]]:
    """The losses in the collection `losses`, by name, each a mean over layers.

    Args:
        collected: the collections that applying a model changed.
    """
    found: dict[str, list[Array]] = {}
    for path, value in jax.tree_util.tree_leaves_with_path(collected.get(LOSSES, {})):
        name = next(key.key for key in reversed(path) if hasattr(key, "key"))
        found.setdefault(name, []).append(value)
    # Scanned layers share one leaf; others have one each.
    return {name: jnp.mean(jnp.stack(values)) for name, values in found.items()}


def sequence_losses(
    model: nn.Module,
    params: Any,
    batch: Any,
    rngs: dict[str, jax.Array],
    vocab_chunk: int,
    label_smoothing: Number = 0.0,
) -> Losses:
    """Cross-entropy of every token of an encoder-decoder's target.

    Args:
        model: the encoder-decoder.
        params: its parameters.
        batch: `source`, `target`, `labels`, and segments and positions if pairs share rows.
        rngs: for dropout; empty for none.
        vocab_chunk: see `vocabulary_losses`.
        label_smoothing: see `ops.losses.cross_entropy`; `loss` in the metrics is without smoothing.
    """
    layout = {name: batch[name] for name in batch if name.endswith(("_segments", "_positions"))}

    def score(module: Any) -> TokenLosses:
        target = module.begun(batch["target"], batch.get("target_segments"))
        features = module.features(batch["source"], target, **layout)
        terms = {"label_smoothing": label_smoothing}
        return vocabulary_losses(module, features, batch["labels"], vocab_chunk, **terms)

    # Inside the module's scope, features and output layer are two calls on one bound model, so
    # logits need never exist for the whole vocabulary at once.
    scores = nn.apply(score, model)({"params": params}, rngs=rngs)
    objective = jnp.sum(scores.objective)
    metrics = {"loss": jnp.sum(scores.nll), "accuracy": jnp.sum(scores.correct)}
    if not is_zero(label_smoothing):
        metrics["smoothed_loss"] = objective
    return Losses(objective, jnp.sum(scores.weight), metrics)


@runtime_checkable
class Task(Protocol):
    """A job: its data, its loss and the results that it shows at the end.

    A task is a frozen dataclass of `config.task`. The data that it reads are a separate object,
    returned by `load` and passed to every method that needs it.
    """

    # Fields of the model that the data determine; `dimensions` gives their values.
    DIMENSIONS: ClassVar[tuple[str, ...]]
    # The method of the model that uses all parameters of the job.
    entry: ClassVar[str]
    # The protocol that the models of this task implement, from `tasks/parts/models.py`.
    model_kind: ClassVar[type]

    def load(self, workdir: Path | None) -> Any:
        """Reads and prepares the data; a tokenizer in `workdir` is used rather than made anew.

        `workdir` is the run's folder, or that of the run from which it is initialized.
        """
        ...

    def load_validation(self, paths: Sequence[str], workdir: Path) -> Any:
        """Other files to validate on, read as the run in `workdir` reads its own."""
        ...

    def describe(self, data: Any) -> str:
        """Describes the data in a line or two: how much there is, what was left out."""
        ...

    def save(self, data: Any, workdir: Path) -> None:
        """Writes what later scripts need besides the config (a tokenizer) into `workdir`."""
        ...

    def dimensions(self, data: Any) -> dict[str, int]:
        """Fields of the model that the data determine, such as `vocab_size`."""
        ...

    def fingerprint(self, data: Any) -> str:
        """Changes when the data change; begins with `tokenizer_digest` if there is a tokenizer."""
        ...

    def check_run(self, workdir: Path, fingerprint: str) -> None:
        """Refuses files in a run's folder that do not belong to its checkpoint.

        Args:
            workdir: the run folder.
            fingerprint: the fingerprint of the data that the checkpoint was trained on.
        """
        ...

    def check_model(self, model: Any) -> None:
        """Refuses a model of the right kind that cannot do the job with this task's settings."""
        ...

    def pace(self, data: Any) -> Pace:
        """The size of steps and epochs, for durations and speeds."""
        ...

    def batch_rows(self, data: Any) -> Iterable[int]:
        """The numbers of rows that batches have, over all hosts and microbatches."""
        ...

    def train_batches(self, data: Any, *, seed: int, num_steps: int) -> Batches:
        """Batches by step, over all hosts; few shapes, each compiled once."""
        ...

    def validation_batches(self, data: Any) -> Batches:
        """All validation batches once, over all hosts.

        A row does not count if its `valid` is 0 or, in batches without `valid`, if all of its
        `labels` are `IGNORED`.
        """
        ...

    def example_inputs(self, model: Any) -> tuple:
        """Positional arguments to call `entry` with: one example, of any values."""
        ...

    def losses(
        self, model: nn.Module, params: Any, batch: Any, rngs: dict[str, jax.Array]
    ) -> Losses:
        """The loss of a batch; without `rngs` nothing is dropped."""
        ...

    def scores(self, model: Any, params: Any, data: Any) -> dict[str, Any]:
        """Scores of the validation data besides the loss: outputs compared with references."""
        ...

    def show(self, model: Any, params: Any, data: Any, workdir: Path) -> Shown:
        """Shows results after training.

        Files go into `workdir`, an empty folder: they are moved into the run folder when all are
        complete. So the text names the files without a folder.
        """
        ...
