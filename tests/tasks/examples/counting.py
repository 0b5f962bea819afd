"""Counting on in steps, modulo a number: the example of a task in one file of its own."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from transformer.composition import FLAT
from transformer.data.order import Batches
from transformer.data.rows import RowSource
from transformer.errors import ConfigError
from transformer.limits import Count
from transformer.ops.losses import IGNORED
from transformer.tasks.parts.batching import FixedRows
from transformer.tasks.parts.losses import next_token_losses
from transformer.tasks.parts.models import TextDecoder
from transformer.tasks.parts.protocol import Losses, Pace, Shown
from transformer.types import Batch, Json, Params

_ROWS = FixedRows(batch_size=4)


@dataclasses.dataclass(frozen=True, eq=False)
class Numbers:
    """Rows of numbers that go up in equal steps.

    Attributes:
        rows: the rows of a batch.
        numbers: `[n, T + 1]`.
        modulus: each is less than this.
    """

    rows: FixedRows
    numbers: Int[np.ndarray, "n T1"]
    modulus: int

    def describe(self) -> str:
        return f"{len(self.numbers)} rows of {self.numbers.shape[1]} numbers."

    def save(self, workdir: Path) -> None:
        """Nothing: the rules are in the config."""

    def dimensions(self) -> dict[str, int]:
        return {"vocab_size": self.modulus}

    def fingerprint(self) -> str:
        return str(self.numbers.shape)

    def pace(self) -> Pace:
        return self.rows.pace(len(self.numbers), self.numbers.shape[1] - 1)

    def batch_rows(self) -> tuple[int]:
        return (self.rows.batch_size,)

    def train_batches(self, *, seed: int, num_steps: int) -> Batches:
        return self.rows.train_batches(self._source, seed=seed, num_steps=num_steps)

    def validation_batches(self) -> Batches:
        return self.rows.validation_batches(self._source)

    @property
    def _source(self) -> RowSource:
        return RowSource({"tokens": self.numbers[:, :-1], "labels": self.numbers[:, 1:]})


@dataclasses.dataclass(frozen=True)
class Counting:
    """Predicts the next number; its fields are `config.task`.

    Attributes:
        rows: the rows of a batch.
        modulus: counting begins again at 0 behind this number less one.
        step: how much a number is more than the one before.
        length: T, the numbers of a row.
    """

    DIMENSIONS: ClassVar[tuple[str, ...]] = ("vocab_size",)
    entry: ClassVar[str] = "__call__"
    model_kind: ClassVar[type] = TextDecoder

    rows: Annotated[FixedRows, FLAT] = _ROWS
    modulus: Count = 11
    step: Count = 3
    length: Count = 8

    def load(self, workdir: Path | None) -> Numbers:
        counted = self.step * np.arange(self.length + 1)
        numbers = (np.arange(self.modulus)[:, None] + counted) % self.modulus
        return Numbers(self.rows, numbers.astype(np.int32), self.modulus)

    def load_validation(self, paths: Sequence[str], workdir: Path) -> Numbers:
        raise ConfigError("numbers have no files.")

    def check_model(self, model: TextDecoder) -> None:
        """Every language model can count."""

    def example_inputs(self, model: TextDecoder) -> tuple[Int[Array, "1 T"]]:
        return (jnp.zeros((1, self.length), jnp.int32),)

    def losses(
        self, model: TextDecoder, params: Params, batch: Batch, rngs: dict[str, jax.Array]
    ) -> Losses:
        labels = jnp.where(batch["valid"][:, None] > 0, batch["labels"], IGNORED)
        rows = {"tokens": batch["tokens"], "labels": labels}
        return next_token_losses(model, params, rows, rngs)

    def scores(self, model: TextDecoder, params: Params, data: Numbers) -> Json:
        return {}

    def show(self, model: TextDecoder, params: Params, data: Numbers, workdir: Path) -> Shown:
        return Shown("counted", {})
