"""How good a player is: all games enumerated, shares of wins, and Elo ratings."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from transformer.data.games.positions import Game, Positions
from transformer.data.games.solving import keys_of

# Chooses one move for each position.
Chooser = Callable[[Positions], Int[np.ndarray, "B"]]
# Says which moves a player may make, each with equal probability.
Mover = Callable[[Positions], Bool[np.ndarray, "B S"]]


class Results(NamedTuple):
    """The probabilities of the results of a game, for one of the players.

    Attributes:
        win: it wins.
        draw: nobody wins.
        loss: it loses, illegal moves included.
        illegal: it makes an illegal move, which loses.
        positions: how many different positions it had to move in.
    """

    win: float
    draw: float
    loss: float
    illegal: float
    positions: int


def all_games(game: Game, choose: Chooser, reply: Mover, side: int) -> Results:
    """The results of a deterministic player over all games that can happen.

    Both players move from the first position on. Equal positions are visited once, with the
    probability of reaching them, so that a probability of 0 means that it cannot happen.

    Args:
        game: a game in which the players take turns and every move adds a stone.
        choose: the moves of the player.
        reply: the moves of the other; all are tried.
        side: 0 if the player begins, 1 if the other does.
    """
    positions, chances = game.start(1), np.ones(1)
    totals = {"win": 0.0, "draw": 0.0, "loss": 0.0, "illegal": 0.0}
    count = turn = 0
    while len(chances):
        legal = np.asarray(game.legal(positions))
        over = ~legal.any(-1)
        # Outcomes are those of the player to move.
        worth = np.asarray(game.outcomes(positions)) * (1 if turn % 2 == side else -1)
        for name, value in (("win", 1), ("draw", 0), ("loss", -1)):
            totals[name] += float(chances[over & (worth == value)].sum())
        positions, chances, legal = positions.take(~over), chances[~over], legal[~over]
        if not len(chances):
            break
        if turn % 2 == side:
            count += len(chances)
            moves, parents = choose(positions), np.arange(len(chances))
            wrong = ~legal[parents, moves]
            totals["illegal"] += float(chances[wrong].sum())
            totals["loss"] += float(chances[wrong].sum())
            parents, moves = parents[~wrong], moves[~wrong]
            shares = np.ones(len(parents))
        else:
            allowed = reply(positions) & legal
            parents, moves = np.nonzero(allowed)
            shares = 1.0 / allowed.sum(-1)[parents]
        after = game.after(positions.take(parents), moves)
        _, first, same = np.unique(keys_of(after.boards), return_index=True, return_inverse=True)
        chances = np.bincount(same, chances[parents] * shares, len(first))
        positions = after.take(first)
        turn += 1
    return Results(**totals, positions=count)


def elo_ratings(
    points: Float[np.ndarray, "n n"], games: Float[np.ndarray, "n n"]
) -> Float[np.ndarray, " n"]:
    """Ratings under which a player's expected points are 1 / (1 + 10^(-difference / 400)).

    The most probable ratings (Bradley and Terry 1952), by the iteration of Hunter (2004, section
    2); a draw is half a win. One drawn game is added to each pair that has met, so that a player
    that never loses has a finite rating. The mean rating is 0.

    Args:
        points: the points of each player against each other.
        games: how many games they played.
    """
    met = (games > 0).astype(np.float64)
    points, games = points + 0.5 * met, games + met
    strengths = np.ones(len(points))
    for _ in range(10_000):
        expected = games / (strengths[:, None] + strengths[None, :])
        new = points.sum(-1) / np.maximum(expected.sum(-1), 1e-12)
        new /= np.exp(np.mean(np.log(new)))
        done = np.allclose(new, strengths, rtol=1e-10)
        strengths = new
        if done:
            break
    return 400.0 * np.log10(strengths)
