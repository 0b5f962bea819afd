"""Learning a small game from its solution: the best moves and the value of every position."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from transformer.composition import FLAT
from transformer.data.games.positions import Positions
from transformer.data.games.rows import RowGame
from transformer.data.games.solving import Solved, keys_of, solve
from transformer.errors import ConfigError
from transformer.limits import PartOrNone
from transformer.tasks.parts.boards import (
    Board,
    BoardData,
    Lessons,
    allows,
    board_losses,
    divergences,
    require_no_files,
    solutions,
)
from transformer.tasks.parts.models import Model
from transformer.tasks.parts.playing import BoardPlayer, Judgement, judged
from transformer.tasks.parts.protocol import Losses, Shown
from transformer.types import Batch, Json, Params

# The seed of the choice of held-out positions; never change it, so that scores stay comparable.
_SPLIT_SEED = 0
# Positions with fewer stones are never held out: nothing else is like the beginning of a game.
_FEW_STONES = 4
_BOARD = Board()


@dataclasses.dataclass(frozen=True)
class SolvedGame:
    """Imitates a perfect player; its fields are `config.task`.

    Attributes:
        board: the rules, and the positions of a batch.
        held_out: the fraction of positions for validation, of those with at least four stones.
            Positions that turn or mirror into each other are held out together. 0 trains and
            validates on all positions: the game is then learned by heart, which is enough to play
            it.
    """

    DIMENSIONS: ClassVar[tuple[str, ...]] = ("num_squares",)
    EXACT_DIMENSIONS: ClassVar[tuple[str, ...]] = ("num_squares",)
    entry: ClassVar[str] = "evaluate"
    model_kind: ClassVar[type] = BoardPlayer

    board: Annotated[Board, FLAT] = _BOARD
    held_out: PartOrNone = 0.0

    def load(self, workdir: Path | None) -> BoardData:
        """Solves the game and holds positions out."""
        del workdir
        solved = solve(self.board.game)
        every = np.arange(len(solved.values))
        if not self.held_out:
            return self._data(solved, every, every)
        boards = solved.positions.boards
        classes = _classes(self.board.game, boards)
        late = np.unique(classes[(boards > 0).sum(-1) >= _FEW_STONES])
        count = round(self.held_out * len(late))
        if not count:
            raise ConfigError(
                f"config.task.held_out is {self.held_out}: none of the {len(late):,} positions "
                f"would be held out. Give a larger part, or 0."
            )
        order = np.random.default_rng(_SPLIT_SEED).permutation(late)
        held = np.isin(classes, order[:count])
        return self._data(solved, every[~held], every[held])

    def _data(
        self, solved: Solved, train: Int[np.ndarray, " n"], validation: Int[np.ndarray, " m"]
    ) -> BoardData:
        text = (
            f"{solved.num_reachable:,} positions can be reached, {len(solved.values):,} of them in "
            f"play; {len(train):,} to train on, {len(validation):,} to validate on."
        )
        source = functools.partial(solutions, solved, train)
        lessons = Lessons(text, len(train), source, True, self.board.num_squares)
        return BoardData(self.board, solved, train, validation, lessons)

    def load_validation(self, paths: Sequence[str], workdir: Path) -> BoardData:
        """There are no other positions than those of the game."""
        require_no_files()

    def check_model(self, model: BoardPlayer) -> None:
        """Every model of the right kind can do the job."""

    def example_inputs(self, model: BoardPlayer) -> tuple[Int[Array, "1 S"]]:
        """One board."""
        return self.board.example_inputs()

    # ------------------------------------------------------------------------------- loss

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

    # ------------------------------------------------------------------- playing, and the end

    def rules(self) -> RowGame:
        """The game."""
        return self.board.game

    def judge(
        self, model: Model, params: Params, positions: Positions, moves: Int[np.ndarray, "B t"]
    ) -> Judgement:
        """What the model thinks of positions; how they came about makes no difference."""
        return judged(model, params, positions.boards)

    def best_by_search(
        self, model: BoardPlayer, params: Params, positions: Positions, simulations: int
    ) -> Int[np.ndarray, "B"]:
        """The moves that Gumbel MuZero's search finds with the model and the rules."""
        return self.board.best_by_search(model, params, positions, simulations)

    def scores(self, model: BoardPlayer, params: Params, data: BoardData) -> Json:
        """Shares of right answers over positions, and the results of all games."""
        return data.scores(model, params)

    def show(self, model: BoardPlayer, params: Params, data: BoardData, workdir: Path) -> Shown:
        """Shows the scores, and draws what the model thinks of some positions in `moves.png`."""
        return data.show(model, params, workdir)


def _classes(game: RowGame, boards: np.ndarray) -> np.ndarray:
    """The number of the class of each board; a class is of boards that mirror into each other."""
    smallest = np.min([keys_of(boards[:, places]) for places in game.symmetries], axis=0)
    return np.unique(smallest, return_inverse=True)[1]
