"""Small games solved exactly: the value of every reachable position and its best moves."""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from transformer.data.games.positions import Game, Positions
from transformer.errors import ConfigError

# A game with more positions is refused: they would not fit into the memory of a laptop.
MOST_POSITIONS = 5_000_000
# Powers of 3 up to this one are numbers of 64 bits.
_MOST_SQUARES = 39


@dataclasses.dataclass(frozen=True, eq=False)
class Solved:
    """Every position that can be reached and in which the game is not over.

    Attributes:
        positions: P of them, by the number of stones.
        values: `[P]`: with perfect play the player to move loses (-1), draws (0) or wins (1).
        best: `[P, S]`: the moves that keep this value.
        num_reachable: how many positions can be reached, finished ones included.
    """

    positions: Positions
    values: Int[np.ndarray, "P"]
    best: Bool[np.ndarray, "P S"]
    num_reachable: int


class _Level(NamedTuple):
    """All different positions after the same number of moves.

    Attributes:
        positions: the positions, ordered by key.
        legal: their legal moves.
        parents: the position that each move belongs to, over all moves.
        moves: the square of each move.
        children: the position of the next level to which each move leads.
    """

    positions: Positions
    legal: np.ndarray
    parents: np.ndarray
    moves: np.ndarray
    children: np.ndarray


def solve(game: Game) -> Solved:
    """Solves a game in which every move adds a stone and the players take turns.

    All positions are found by the number of stones, then valued from the last to the first.

    Raises:
        ConfigError: if the game has too many positions.
    """
    levels = _all_levels(game)
    values: list[np.ndarray] = []
    best: list[np.ndarray] = []
    for level in reversed(levels):
        worth = game.outcomes(level.positions).astype(np.int8)
        good = np.zeros_like(level.legal)
        if len(level.moves):
            gains = -values[-1][level.children]
            highest = np.full(len(worth), -2, np.int8)
            np.maximum.at(highest, level.parents, gains)
            worth = np.where(level.legal.any(-1), highest, worth)
            good[level.parents, level.moves] = gains == worth[level.parents]
        values.append(worth)
        best.append(good)
    going_on = np.concatenate([level.legal.any(-1) for level in levels])
    boards, players = (
        np.concatenate(arrays)[going_on]
        for arrays in zip(*(level.positions for level in levels), strict=True)
    )
    return Solved(
        Positions(boards, players),
        np.concatenate(values[::-1])[going_on],
        np.concatenate(best[::-1])[going_on],
        len(going_on),
    )


def keys_of(boards: Int[np.ndarray, "B S"]) -> np.ndarray:
    """A number for each board, the same for equal boards, of at most 39 squares."""
    return boards.astype(np.int64) @ (3 ** np.arange(boards.shape[1], dtype=np.int64))


def _all_levels(game: Game) -> list[_Level]:
    positions, levels, count = game.start(1), [], 0
    while len(positions.boards):
        count += len(positions.boards)
        legal = np.asarray(game.legal(positions))
        parents, moves = np.nonzero(legal)
        if count > MOST_POSITIONS or legal.shape[1] > _MOST_SQUARES:
            rows, columns = game.shape
            raise ConfigError(
                f"config.task.game on {rows} x {columns} squares has more than "
                f"{MOST_POSITIONS:,} positions: too many to solve. Take a smaller board."
            )
        after = game.after(positions.take(parents), moves)
        _, first, children = np.unique(
            keys_of(after.boards), return_index=True, return_inverse=True
        )
        levels.append(_Level(positions, legal, parents, moves, children))
        positions = after.take(first)
    return levels
