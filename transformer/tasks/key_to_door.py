"""Acting by the return that is asked for, learned from random episodes alone.

The job of Chen et al. 2021 ("Decision Transformer", section 5.4): a model reads random walks
through the rooms of Key-to-Door, of which few are paid. Asked for the return 1, it must take the
key long before that pays. Where the return is hidden, the same model is a clone of the behaviour.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from transformer.composition import FLAT
from transformer.data.games.rooms import FEATURES, MOVES, Episodes, Rooms, Trajectories
from transformer.data.order import Batches
from transformer.data.rows import RowSource
from transformer.errors import ConfigError
from transformer.limits import Count, PartOrNone, Positive, Whole
from transformer.ops.losses import IGNORED, cross_entropy
from transformer.pictures.rooms import draw_walks
from transformer.tasks.parts.acting import Decides, act
from transformer.tasks.parts.batching import FixedRows
from transformer.tasks.parts.protocol import Losses, Pace, Shown
from transformer.types import Batch, Json, Params

_ROOMS = Rooms()
# The return of an episode that is paid, and how many walks of each kind are drawn.
_PAID, _DRAWN = 1.0, 3
_TITLES = {"asked": "asked for 1", "refused": "asked for 0", "cloned": "return hidden"}
# The seed of the episodes to validate on, which no training episodes have.
_VALIDATION_SEED = 1 << 40
_DIMENSIONS = ("num_features", "num_values", "num_actions", "num_turns")
_ROWS = FixedRows(64)


@dataclasses.dataclass(frozen=True, eq=False)
class Walks:
    """Random episodes.

    Attributes:
        rows: the episodes of a batch.
        rooms: the rules.
        train: the episodes to learn from.
        validation: others to validate on.
    """

    rows: FixedRows
    rooms: Rooms
    train: Trajectories
    validation: Trajectories

    def describe(self) -> str:
        """How many episodes there are, and how many of them are paid."""
        count, paid = len(self.train.rewards), int(self.train.rewards.sum())
        return (
            f"Key-to-Door: {count:,} random episodes of {self.rooms.length} moves, "
            f"{paid:,} of them paid ({paid / count:.2%})."
        )

    def save(self, workdir: Path) -> None:
        """Nothing: the rules and the seed are in the config."""

    def dimensions(self) -> dict[str, int]:
        """What the rules determine."""
        values = FEATURES, self.rooms.num_values, len(MOVES), self.rooms.length
        return dict(zip(_DIMENSIONS, values, strict=True))

    def fingerprint(self) -> str:
        """Changes with the episodes."""
        digest = hashlib.sha256(np.ascontiguousarray(self.train.observations).tobytes())
        digest.update(np.ascontiguousarray(self.train.actions).tobytes())
        return digest.hexdigest()[:32]

    def pace(self) -> Pace:
        """Examples are episodes, tokens are moves."""
        return self.rows.pace(len(self.train.rewards), self.rooms.length)

    def batch_rows(self) -> tuple[int]:
        """B."""
        return (self.rows.batch_size,)

    def train_batches(self, *, seed: int, num_steps: int) -> Batches:
        """`before`, `returns`, `observations`, `labels` (the actions) and `valid`."""
        return self.rows.train_batches(_source(self.train), seed=seed, num_steps=num_steps)

    def validation_batches(self) -> Batches:
        """As `train_batches`, each of the other episodes once."""
        return self.rows.validation_batches(_source(self.validation))


@dataclasses.dataclass(frozen=True)
class KeyToDoor:
    """Learns to act from random episodes; its fields are `config.task`.

    Attributes:
        rooms: the rules.
        episodes: how many random episodes there are to learn from.
        data_seed: their seed.
        validation_episodes: how many others to validate on.
        hidden: the share of episodes whose returns are hidden; from these the model learns to clone
            the behaviour.
        tries: in how many episodes it acts at the end.
        temperature: of its moves there: below 1, probable moves become more so.
        rows: the episodes of a batch.
    """

    DIMENSIONS: ClassVar[tuple[str, ...]] = _DIMENSIONS
    EXACT_DIMENSIONS: ClassVar[tuple[str, ...]] = _DIMENSIONS
    entry: ClassVar[str] = "decide"
    model_kind: ClassVar[type] = Decides

    rooms: Rooms = _ROOMS
    episodes: Count = 10_000
    data_seed: Annotated[int, Whole(0)] = 0
    validation_episodes: Count = 1000
    hidden: PartOrNone = 0.25
    tries: Count = 1000
    temperature: Positive = 1.0
    rows: Annotated[FixedRows, FLAT] = _ROWS

    def load(self, workdir: Path | None) -> Walks:
        """Walks through the rooms at random."""
        del workdir
        train = self.rooms.random_episodes(self.episodes, self.data_seed)
        validation = self.rooms.random_episodes(self.validation_episodes, _VALIDATION_SEED)
        return Walks(self.rows, self.rooms, train, validation)

    def load_validation(self, paths: Sequence[str], workdir: Path) -> Walks:
        """There are no files."""
        raise ConfigError("random episodes have no files: evaluate the run without --path.")

    def check_model(self, model: Decides) -> None:
        """Every model of the right kind can do the job."""

    def example_inputs(self, model: Decides) -> tuple[Array, ...]:
        """One episode."""
        row = jnp.zeros((1, self.rooms.length), jnp.int32)
        seen = jnp.zeros((*row.shape, model.num_features or FEATURES), jnp.int32)
        return row, row.astype(jnp.float32), row == 0, seen

    def losses(
        self, model: Decides, params: Params, batch: Batch, rngs: dict[str, jax.Array]
    ) -> Losses:
        """Cross-entropy of every move.

        In training some returns are hidden, by the random key of the step. Validation asks for the
        true ones.
        """
        rows = batch["before"].shape[0]
        asked = jnp.ones(rows, bool)
        if rngs:
            key = jax.random.fold_in(rngs["dropout"], 0)
            asked = jax.random.uniform(key, (rows,)) >= self.hidden
        logits, _ = model.apply(
            {"params": params},
            batch["before"],
            batch["returns"],
            jnp.broadcast_to(asked[:, None], batch["before"].shape),
            batch["observations"],
            method="decide",
            rngs=rngs,
        )
        in_play = (batch["labels"] != IGNORED) & (batch["valid"] > 0)[:, None]
        found = cross_entropy(logits, jnp.where(in_play, batch["labels"], IGNORED))
        paid = found.weight * (batch["returns"] > 0)
        metrics = {
            "loss": jnp.sum(found.nll),
            "accuracy": jnp.sum(found.correct),
            "paid_loss": jnp.sum(found.nll * paid),
        }
        weight = jnp.sum(found.weight)
        return Losses(metrics["loss"], weight, metrics, {"paid_loss": jnp.sum(paid)})

    # ----------------------------------------------------------------------------- the end

    def scores(self, model: Decides, params: Params, data: Walks) -> Json:
        """The shares of rooms in which the door pays, by what the model is asked for.

        `asked` is for the return 1, `refused` for 0, and `cloned` with the return hidden; `random`
        is the share of the random episodes that it has learned from.
        """
        return self._scores(self._episodes(model, params), data)

    def show(self, model: Decides, params: Params, data: Walks, workdir: Path) -> Shown:
        """Shows the scores, and draws some walks in `walks.png`."""
        episodes = self._episodes(model, params)
        scores = self._scores(episodes, data)
        titled = {_TITLES[name]: each for name, each in episodes.items()}
        draw_walks(self.rooms, titled, _DRAWN, workdir / "walks.png")
        lines = [f"{name:<16} {value:.1%}" for name, value in scores.items()]
        return Shown("\n".join(["Key-to-Door", *lines]), scores)

    def _episodes(self, model: Decides, params: Params) -> dict[str, Episodes]:
        """What the model does, by what it is asked for."""
        kinds = {"asked": _PAID, "refused": 0.0, "cloned": None}
        return {
            name: act(
                model,
                params,
                self.rooms,
                asked=asked,
                temperature=self.temperature,
                count=self.tries,
                seed=0,
            )
            for name, asked in kinds.items()
        }

    def _scores(self, episodes: dict[str, Episodes], data: Walks) -> dict[str, float]:
        """See `scores`."""
        found = {f"success_{name}": float(each.paid.mean()) for name, each in episodes.items()}
        return {**found, "success_random": float(data.train.rewards.sum(-1).mean())}


def _source(walks: Trajectories) -> RowSource:
    """Episodes as examples."""
    before = np.full_like(walks.actions, len(MOVES))
    before[:, 1:] = walks.actions[:, :-1]
    rows = {
        "before": before,
        "returns": walks.returns().astype(np.float32),
        "observations": walks.observations,
        "labels": np.where(walks.in_play, walks.actions, IGNORED).astype(np.int32),
    }
    return RowSource(rows)
