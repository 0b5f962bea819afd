"""Acting by the return that is asked for, learned from random episodes alone.

The job of Chen et al. 2021 ("Decision Transformer", section 5.4): a model reads random walks
through the rooms of Key-to-Door, of which few are paid. Asked for the return 1, it must take the
key long before that pays. Where the return is hidden, the same model is a clone of the behaviour.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from transformer.data.games.rooms import FEATURES, MOVES, Episodes, Rooms, Trajectories
from transformer.data.order import Batches
from transformer.data.rows import RowSource
from transformer.errors import ConfigError
from transformer.limits import BatchSize, Count, PartOrNone, Positive, Whole
from transformer.ops.losses import IGNORED, cross_entropy
from transformer.pictures.rooms import draw_walks
from transformer.tasks.parts import batching
from transformer.tasks.parts.acting import Decides, act
from transformer.tasks.parts.protocol import Losses, Pace, Shown
from transformer.types import Batch, Data, Json, Params

_ROOMS = Rooms()
# The return of an episode that is paid, and how many walks of each kind are drawn.
_PAID, _DRAWN = 1.0, 3
_TITLES = {"asked": "asked for 1", "refused": "asked for 0", "cloned": "return hidden"}
# The seed of the episodes to validate on, which no training episodes have.
_VALIDATION_SEED = 1 << 40


class Walks(NamedTuple):
    """The episodes to learn from, and others to validate on."""

    train: Trajectories
    validation: Trajectories


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
        batch_size: B, episodes per step over all hosts and microbatches.
        validation_batch_size: episodes per validation batch; None takes `batch_size`.
    """

    DIMENSIONS: ClassVar[tuple[str, ...]] = (
        "num_features",
        "num_values",
        "num_actions",
        "num_turns",
    )
    EXACT_DIMENSIONS: ClassVar[tuple[str, ...]] = DIMENSIONS
    entry: ClassVar[str] = "decide"
    model_kind: ClassVar[type] = Decides

    rooms: Rooms = _ROOMS
    episodes: Count = 10_000
    data_seed: Annotated[int, Whole(0)] = 0
    validation_episodes: Count = 1000
    hidden: PartOrNone = 0.25
    tries: Count = 1000
    temperature: Positive = 1.0
    batch_size: BatchSize = 64
    validation_batch_size: BatchSize | None = None

    def load(self, workdir: Path | None) -> Walks:
        """Walks through the rooms at random."""
        del workdir
        train = self.rooms.random_episodes(self.episodes, self.data_seed)
        return Walks(train, self.rooms.random_episodes(self.validation_episodes, _VALIDATION_SEED))

    def load_validation(self, paths: Sequence[str], workdir: Path) -> Walks:
        """There are no files."""
        raise ConfigError("random episodes have no files: evaluate the run without --path.")

    def describe(self, data: Walks) -> str:
        """How many episodes there are, and how many of them are paid."""
        paid = int(data.train.rewards.sum())
        return (
            f"Key-to-Door: {self.episodes:,} random episodes of {self.rooms.length} moves, "
            f"{paid:,} of them paid ({paid / self.episodes:.2%})."
        )

    def save(self, data: Walks, workdir: Path) -> None:
        """Nothing: the rules and the seed are in the config."""

    def dimensions(self, data: Data) -> dict[str, int]:
        """What the rules determine."""
        values = FEATURES, self.rooms.num_values, len(MOVES), self.rooms.length
        return dict(zip(self.DIMENSIONS, values, strict=True))

    def fingerprint(self, data: Walks) -> str:
        """Changes with the episodes."""
        digest = hashlib.sha256(np.ascontiguousarray(data.train.observations).tobytes())
        digest.update(np.ascontiguousarray(data.train.actions).tobytes())
        return digest.hexdigest()[:32]

    def check_model(self, model: Decides) -> None:
        """Every model of the right kind can do the job."""

    def pace(self, data: Walks) -> Pace:
        """Examples are episodes, tokens are moves."""
        return batching.pace(self, self.episodes, self.rooms.length)

    def batch_rows(self, data: Data) -> tuple[int]:
        """B."""
        return (self.batch_size,)

    def train_batches(self, data: Walks, *, seed: int, num_steps: int) -> Batches:
        """`before`, `returns`, `observations`, `labels` (the actions) and `valid`."""
        return batching.train_batches(self, _source(data.train), seed=seed, num_steps=num_steps)

    def validation_batches(self, data: Walks) -> Batches:
        """As `train_batches`, each of the other episodes once."""
        return batching.validation_batches(self, _source(data.validation))

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
