"""Minimax: a player that looks some moves ahead."""

import numpy as np
from jaxtyping import Bool, Int

from transformer.data.games.positions import Game, Positions

# What an illegal move is worth.
_NEVER = -9


def minimax_moves(game: Game, positions: Positions, depth: int) -> Bool[np.ndarray, "B S"]:
    """The best moves of a player that looks `depth` moves ahead.

    Games that are not over by then count as draws. A near win is no better than a far one.

    Args:
        game: a game in which the players take turns.
        positions: B positions in which the game is not over.
        depth: how many moves are tried one after another, at least 1.
    """
    legal = np.asarray(game.legal(positions))
    worth = np.full(legal.shape, _NEVER, np.int8)
    parents, moves = np.nonzero(legal)
    after = game.after(positions.take(parents), moves)
    worth[parents, moves] = -_values(game, after, depth - 1)
    return legal & (worth == worth.max(-1, keepdims=True))


def _values(game: Game, positions: Positions, depth: int) -> Int[np.ndarray, "B"]:
    """The values of positions for the player to move."""
    values = np.asarray(game.outcomes(positions)).astype(np.int8)
    legal = np.asarray(game.legal(positions))
    if not depth or not legal.any():
        # Where moves are left, nobody has won yet.
        return np.where(legal.any(-1), 0, values).astype(np.int8)
    parents, moves = np.nonzero(legal)
    children = -_values(game, game.after(positions.take(parents), moves), depth - 1)
    highest = np.full(len(values), _NEVER, np.int8)
    np.maximum.at(highest, parents, children)
    return np.where(legal.any(-1), highest, values)
