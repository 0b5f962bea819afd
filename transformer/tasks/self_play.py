"""Learning a game by playing it against oneself, from nothing but its rules.

Every step plays its own games with the parameters that it has, and learns from them: the policy
what the search recommends, the value how the games ended (as AlphaZero, Silver et al. 2018). The
batches hold only random seeds. So games are a pure function of the seed, the step and the state: a
resumed run plays the same games as one that never stopped.
"""

import dataclasses
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Array

from transformer.data.games.seeds import SeedSource
from transformer.data.order import Batches
from transformer.limits import Whole
from transformer.tasks.parts import batching
from transformer.tasks.parts.boards import (
    BoardData,
    BoardTask,
    allows,
    board_losses,
    divergences,
    sample,
    surprises,
)
from transformer.tasks.parts.playing import BoardPlayer
from transformer.tasks.parts.protocol import Losses, Pace
from transformer.tasks.parts.searching import Played, play_games, require_search
from transformer.types import Batch, Params

# Boards in an epoch, for durations that are written in epochs, and the most positions to validate
# on.
_EPOCH, _VALIDATED = 10_000, 5_000


@dataclasses.dataclass(frozen=True)
class SelfPlay(BoardTask):
    """Self-play with a search; its fields and those of `BoardTask` are `config.task`.

    `batch_size` counts boards; on each, a step makes as many moves as it has squares. Validation is
    against the solution of the game; there `policy_loss` is the surprise that a best move is
    played, as in `parts.boards.surprises`.

    Attributes:
        simulations: positions that the search looks at before each move.
        random_moves: the most random moves before a game begins; without any, games of good players
            are all alike.
        mirrored: turns and mirrors each position at random before it is learned.
    """

    simulations: Annotated[int, Whole(2, 1 << 12)] = 16
    random_moves: Annotated[int, Whole(0, 1 << 10)] = 4
    mirrored: bool = True

    def load(self, workdir: Path | None) -> BoardData:
        """Solves the game, to validate on all positions or on some thousands of them."""
        require_search()
        data = super().load(workdir)
        return data._replace(validation=sample(len(data.validation), _VALIDATED))

    def describe(self, data: BoardData) -> str:
        """What is played."""
        return (
            f"{self.game.title}: games against itself on {self.batch_size:,} boards, "
            f"{self.simulations} positions searched before a move; validated on the solution of "
            f"{len(data.validation):,} positions."
        )

    def pace(self, data: BoardData) -> Pace:
        """Examples are boards, tokens the squares that are read before each move."""
        squares = self.game.rows * self.game.columns
        return batching.pace(self, _EPOCH, squares**2)

    def train_batches(self, data: BoardData, *, seed: int, num_steps: int) -> Batches:
        """`seeds`, from which a step makes its games."""
        source = SeedSource(_EPOCH)
        return batching.train_batches(self, source, seed=seed, num_steps=num_steps, shuffled=False)

    def losses(
        self, model: BoardPlayer, params: Params, batch: Batch, rngs: dict[str, jax.Array]
    ) -> Losses:
        """Plays and learns from it; positions of known value are only judged."""
        if "seeds" not in batch:
            return self._examined(model, params, batch)
        key = jax.random.key(batch["seeds"][0])
        games, forms = jax.random.split(key)
        played = play_games(
            model,
            jax.lax.stop_gradient(params),
            self.game,
            games,
            len(batch["seeds"]),
            moves=self.game.rows * self.game.columns,
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
            forms = jnp.asarray(self.game.symmetries)
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
