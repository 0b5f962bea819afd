"""What the training loop asks of a task."""

from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import flax.linen as nn
import grain
import jax
from jaxtyping import Array, Float


class Losses(NamedTuple):
    """Sums over a batch, so that parts of a batch add up to the whole.

    Attributes:
        objective: what is minimised, summed over predictions.
        weight: how many predictions that is.
        metrics: more sums over predictions; each is logged divided by `weight`. `loss` is in nats
            per prediction.
    """

    objective: Float[Array, ""]
    weight: Float[Array, ""]
    metrics: dict[str, Float[Array, ""]]


@runtime_checkable
class Task(Protocol):
    """A job: its data, its loss and what it shows at the end.

    A task is a frozen dataclass of `config.task`. What it reads from disk is an object of its own,
    returned by `load` and handed to every method that needs it.
    """

    # Fields of the model that the data decide; `dimensions` gives their sizes.
    DIMENSIONS: ClassVar[tuple[str, ...]]

    batch_size: int

    def load(self, workdir: Path | None) -> Any:
        """Reads and prepares the data; a tokenizer in `workdir` is used rather than made anew."""
        ...

    def load_validation(self, path: str, workdir: Path) -> Any:
        """Another file to validate on, read as the run in `workdir` reads its own."""
        ...

    def save(self, data: Any, workdir: Path) -> None:
        """Writes what later scripts need beside the config (a tokenizer) into `workdir`."""
        ...

    def dimensions(self, data: Any) -> dict[str, int]:
        """Fields of the model that the data decides, such as `vocab_size`."""
        ...

    def fingerprint(self, data: Any) -> str:
        """Changes when the data changes."""
        ...

    def tokens_per_example(self) -> int:
        """For durations in tokens and for tokens/s."""
        ...

    def examples_per_epoch(self, data: Any) -> int:
        """For durations in epochs."""
        ...

    def train_batches(self, data: Any, *, seed: int, num_steps: int) -> grain.MapDataset:
        """Batches by step, the part of this host."""
        ...

    def validation_batches(self, data: Any) -> grain.MapDataset:
        """All validation batches once, the part of this host."""
        ...

    def example_inputs(self) -> tuple:
        """Positional arguments to initialise the model with: one example, of any values."""
        ...

    def losses(
        self, model: nn.Module, params: Any, batch: Any, rngs: dict[str, jax.Array]
    ) -> Losses:
        """The loss of a batch; without `rngs` nothing is dropped."""
        ...

    def show(self, model: nn.Module, params: Any, data: Any, workdir: Path) -> str:
        """Something to look at after training: text for the terminal, pictures in `workdir`."""
        ...
