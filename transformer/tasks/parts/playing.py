"""What tasks on board games share: models that judge positions, and how a run plays."""

import dataclasses
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from transformer.data.games.positions import Game, Positions
from transformer.decoding.shapes import rounded_up
from transformer.tasks.parts.labels import softmax
from transformer.tasks.parts.models import Model
from transformer.tasks.parts.outputs import apply
from transformer.types import Params

# Positions that a model judges at once.
_AT_ONCE = 1024


@runtime_checkable
class BoardPlayer(Model, Protocol):
    """Scores the moves and the results of a position; see `models/board_transformer.py`."""

    num_squares: int | None

    def evaluate(
        self, boards: Int[Array, "B S"]
    ) -> tuple[Float[Array, "B S"], Float[Array, "B 3"]]:
        """Scores of the moves, and of loss, draw and win."""


class Judgement(NamedTuple):
    """What a model thinks of B positions.

    Attributes:
        probabilities: of each square as the next move, illegal ones included.
        values: the expected result for the player to move, from -1 to 1; None if the model has no
            opinion.
    """

    probabilities: Float[np.ndarray, "B S"]
    values: Float[np.ndarray, "B"] | None

    def moves(self) -> Int[np.ndarray, "B"]:
        """The most probable moves, whether they are legal or not."""
        return self.probabilities.argmax(-1)


@runtime_checkable
class Plays(Protocol):
    """A task whose runs play a board game."""

    def rules(self) -> Game:
        """The game."""

    def judge(
        self, model: Model, params: Params, positions: Positions, moves: Int[np.ndarray, "B t"]
    ) -> Judgement:
        """What the model thinks of positions.

        Args:
            model: the model of the run.
            params: its parameters.
            positions: where the games stand.
            moves: the moves that have led there, from the first.
        """


@runtime_checkable
class Searches(Plays, Protocol):
    """A task whose runs can look ahead before they move."""

    def best_by_search(
        self, model: Model, params: Params, positions: Positions, simulations: int
    ) -> Int[np.ndarray, "B"]:
        """The moves that a search finds.

        Args:
            model: the model of the run.
            params: its parameters.
            positions: where the games stand; none of them is over.
            simulations: how many positions it looks at before each move.
        """


def judged(model: BoardPlayer, params: Params, boards: Int[np.ndarray, "B S"]) -> Judgement:
    """What a model thinks of boards, computed in few shapes."""
    moves, results = [], []
    for first in range(0, len(boards), _AT_ONCE):
        part = boards[first : first + _AT_ONCE]
        # Rows are filled up, so that few programs are compiled.
        rows = np.zeros((rounded_up(len(part), _AT_ONCE), part.shape[1]), np.int32)
        rows[: len(part)] = part
        scores, outcomes = apply(model, "evaluate", params, rows)
        moves.append(np.asarray(scores)[: len(part)])
        results.append(np.asarray(outcomes)[: len(part)])
    chances = softmax(np.concatenate(results))
    return Judgement(softmax(np.concatenate(moves)), chances[:, 2] - chances[:, 0])


def judged_tokens(
    model: Model, params: Params, moves: Int[np.ndarray, "B t"], longest: int
) -> Judgement:
    """What a decoder takes for the next move of games, with a token for each square.

    Args:
        model: a decoder whose token 0 begins a game, and whose token i + 1 is square i.
        params: its parameters.
        moves: the moves so far, fewer than `longest`.
        longest: the number of moves of the longest game.
    """
    count, turn = moves.shape
    rows = np.zeros((rounded_up(count), longest), np.int32)
    rows[:count, 1 : turn + 1] = moves + 1
    logits, _ = apply(model, "__call__", params, rows)
    return Judgement(softmax(np.asarray(logits[:count, turn]))[:, 1:], None)


@dataclasses.dataclass(frozen=True)
class BoardRun:
    """A model with its parameters, as a chooser of moves for `scoring.games`."""

    model: BoardPlayer
    params: Params

    def __call__(self, positions: Positions) -> Int[np.ndarray, "B"]:
        """The most probable moves, whether they are legal or not."""
        return judged(self.model, self.params, positions.boards).moves()


def expected_result(results: Float[Array, "B 3"]) -> Float[Array, "B"]:
    """The expected result from the scores of loss, draw and win."""
    chances = jax.nn.softmax(results)
    return chances[:, 2] - chances[:, 0]
