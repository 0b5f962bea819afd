"""Learning a small game from its solution: the best moves and the value of every position."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from transformer.data.games.rows import RowGame
from transformer.data.games.solving import keys_of, solve
from transformer.data.order import Batches
from transformer.errors import ConfigError
from transformer.limits import PartOrNone
from transformer.tasks.parts import batching
from transformer.tasks.parts.boards import BoardData, BoardTask, allows, board_losses, divergences
from transformer.tasks.parts.playing import BoardPlayer
from transformer.tasks.parts.protocol import Losses, Pace
from transformer.types import Batch, Params

# The seed of the choice of held-out positions; never change it, so that scores stay comparable.
_SPLIT_SEED = 0
# Positions with fewer stones are never held out: nothing else is like the beginning of a game.
_FEW_STONES = 4


@dataclasses.dataclass(frozen=True)
class SolvedGame(BoardTask):
    """Imitates a perfect player; its fields and those of `BoardTask` are `config.task`.

    Attributes:
        held_out: the fraction of positions for validation, of those with at least four stones.
            Positions that turn or mirror into each other are held out together. 0 trains and
            validates on all positions: the game is then learned by heart, which is enough to play
            it.
    """

    held_out: PartOrNone = 0.0

    def load(self, workdir: Path | None) -> BoardData:
        """Solves the game and holds positions out."""
        del workdir
        solved = solve(self.game)
        every = np.arange(len(solved.values))
        if not self.held_out:
            return BoardData(solved, every, every)
        boards = solved.positions.boards
        classes = _classes(self.game, boards)
        late = np.unique(classes[(boards > 0).sum(-1) >= _FEW_STONES])
        count = round(self.held_out * len(late))
        if not count:
            raise ConfigError(
                f"config.task.held_out is {self.held_out}: none of the {len(late):,} positions "
                f"would be held out. Give a larger part, or 0."
            )
        order = np.random.default_rng(_SPLIT_SEED).permutation(late)
        held = np.isin(classes, order[:count])
        return BoardData(solved, every[~held], every[held])

    def describe(self, data: BoardData) -> str:
        """How many positions there are."""
        return (
            f"{self.game.title}: {data.solved.num_reachable:,} positions can be reached, "
            f"{len(data.solved.values):,} of them in play; {len(data.train):,} to train on, "
            f"{len(data.validation):,} to validate on."
        )

    def pace(self, data: BoardData) -> Pace:
        """Examples are positions, tokens are squares."""
        return batching.pace(self, len(data.train), self.game.rows * self.game.columns)

    def train_batches(self, data: BoardData, *, seed: int, num_steps: int) -> Batches:
        """As `validation_batches`, in a new order each epoch."""
        source = self.solutions(data.solved, data.train)
        return batching.train_batches(self, source, seed=seed, num_steps=num_steps)

    def losses(
        self, model: BoardPlayer, params: Params, batch: Batch, rngs: dict[str, jax.Array]
    ) -> Losses:
        """Best moves share the probability equally; see `board_losses`."""
        moves, results = model.apply(
            {"params": params}, batch["boards"], method="evaluate", rngs=rngs
        )
        best, valid = batch["best"], batch["valid"] > 0
        targets = best / jnp.maximum(jnp.sum(best, axis=-1, keepdims=True), 1)
        lost, right = divergences(moves, targets), allows(best, moves)
        return board_losses(lost, right, results, batch["results"], valid, valid)


def _classes(game: RowGame, boards: np.ndarray) -> np.ndarray:
    """The number of the class of each board; a class is of boards that mirror into each other."""
    smallest = np.min([keys_of(boards[:, places]) for places in game.symmetries], axis=0)
    return np.unique(smallest, return_inverse=True)[1]
