"""Learning a game by playing it against oneself, from nothing but its rules.

Every step plays its own games with the parameters that it has, and learns from them: the policy
what the search recommends, the value how the games ended (as AlphaZero, Silver et al. 2018). The
batches hold only random seeds. So games are a pure function of the seed, the step and the state: a
resumed run plays the same games as one that never stopped.
"""

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
from transformer.data.games.seeds import SeedSource
from transformer.data.games.solving import solve
from transformer.limits import Whole
from transformer.ops.threefry import without_loop
from transformer.tasks.parts.boards import (
    Board,
    BoardData,
    Lessons,
    allows,
    board_losses,
    divergences,
    require_no_files,
    sample,
    surprises,
)
from transformer.tasks.parts.models import Model
from transformer.tasks.parts.playing import BoardPlayer, Judgement, judged
from transformer.tasks.parts.protocol import Losses, Shown
from transformer.tasks.parts.searching import Played, play_games, require_search
from transformer.types import Batch, Json, Params

# Boards in an epoch, for durations that are written in epochs, and the most positions to validate
# on.
_EPOCH, _VALIDATED = 10_000, 5_000
_BOARD = Board()


@dataclasses.dataclass(frozen=True)
class SelfPlay:
    """Self-play with a search; its fields are `config.task`.

    `batch_size` counts boards; on each, a step makes as many moves as it has squares. Validation is
    against the solution of the game; there `policy_loss` is the surprise that a best move is
    played, as in `parts.boards.surprises`.

    Attributes:
        board: the rules, and the boards of a step.
        batch_size: B, boards that a step plays on, over all hosts and microbatches.
        simulations: positions that the search looks at before each move.
        random_moves: the most random moves before a game begins; without any, games of good players
            are all alike.
        mirrored: turns and mirrors each position at random before it is learned.
    """

    DIMENSIONS: ClassVar[tuple[str, ...]] = ("num_squares",)
    EXACT_DIMENSIONS: ClassVar[tuple[str, ...]] = ("num_squares",)
    entry: ClassVar[str] = "evaluate"
    model_kind: ClassVar[type] = BoardPlayer

    board: Annotated[Board, FLAT] = _BOARD
    simulations: Annotated[int, Whole(2, 1 << 12)] = 16
    random_moves: Annotated[int, Whole(0, 1 << 10)] = 4
    mirrored: bool = True

    def load(self, workdir: Path | None) -> BoardData:
        """Solves the game, to validate on all positions or on some thousands of them."""
        require_search()
        del workdir
        solved = solve(self.board.game)
        every = np.arange(len(solved.values))
        validation = sample(len(every), _VALIDATED)
        text = (
            f"games against itself on {self.board.rows.batch_size:,} boards, {self.simulations} "
            f"positions searched before a move; validated on the solution of {len(validation):,} "
            f"positions."
        )
        seeds = functools.partial(SeedSource, _EPOCH)
        # Squares are read before each move.
        lessons = Lessons(text, _EPOCH, seeds, False, self.board.num_squares**2)
        return BoardData(self.board, solved, every, validation, lessons)

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
        """Plays and learns from it; positions of known value are only judged."""
        if "seeds" not in batch:
            return self._examined(model, params, batch)
        key = without_loop(jax.random.key(batch["seeds"][0]))
        games, forms = jax.random.split(key)
        played = play_games(
            model,
            jax.lax.stop_gradient(params),
            self.board.game,
            games,
            len(batch["seeds"]),
            moves=self.board.num_squares,
            simulations=self.simulations,
            random_moves=self.random_moves,
        )
        return self._learned(model, params, jax.lax.stop_gradient(played), forms, rngs)

    def _learned(
        self,
        model: BoardPlayer,
        params: Params,
        played: Played,
        key: Array,
        rngs: dict[str, jax.Array],
    ) -> Losses:
        """The losses of all positions of some games."""
        squares = played.boards.shape[-1]
        boards, policies = (
            array.reshape(-1, squares) for array in (played.boards, played.policies)
        )
        if self.mirrored:
            forms = jnp.asarray(self.board.game.symmetries)
            drawn = jax.random.randint(key, boards.shape[:1], 0, len(forms))
            boards, policies = (
                jnp.take_along_axis(array, forms[drawn], axis=-1) for array in (boards, policies)
            )
        moves, results = model.apply(
            {"params": params}, boards.astype(jnp.int32), method="evaluate", rngs=rngs
        )
        judged = played.judged.reshape(-1)
        lost, right = divergences(moves, policies), allows(policies > 0, moves)
        every = jnp.ones_like(judged)
        return board_losses(lost, right, results, played.labels.reshape(-1), every, judged)

    def _examined(self, model: BoardPlayer, params: Params, batch: Batch) -> Losses:
        """The losses of positions whose solution is known."""
        moves, results = model.apply({"params": params}, batch["boards"], method="evaluate")
        best, valid = batch["best"], batch["valid"] > 0
        lost, right = surprises(moves, best), allows(best, moves)
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
