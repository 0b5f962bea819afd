"""Playing games against oneself with a search, inside a compiled step.

The search is Gumbel MuZero (Danihelka et al. 2022, "Policy improvement by planning with Gumbel")
of the library `mctx`, with the real rules in place of a learned model of the game.
"""

import importlib.util
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from transformer.data.games.positions import Positions
from transformer.data.games.rows import RowGame
from transformer.errors import MissingDependencyError
from transformer.tasks.parts.playing import BoardPlayer, expected_result
from transformer.types import Params

# The score of a move that cannot be made.
_NEVER = jnp.finfo(jnp.float32).min


class Played(NamedTuple):
    """B whole games, of which each has up to S moves.

    Attributes:
        boards: `[S, B, S]`, before each move.
        policies: `[S, B, S]`, the probabilities of moves that the search recommends.
        labels: `[S, B]`, the result of the game for the player to move: 0 loss, 1 draw, 2 win.
        in_play: `[S, B]`, whether the game still goes on.
        judged: `[S, B]`, whether no later move was random, so that the result is the players'.
    """

    boards: Int[Array, "S B S"]
    policies: Float[Array, "S B S"]
    labels: Int[Array, "S B"]
    in_play: Bool[Array, "S B"]
    judged: Bool[Array, "S B"]


def require_search() -> None:
    """Refuses to go on without the library of the search.

    Raises:
        MissingDependencyError: if it is not installed.
    """
    if importlib.util.find_spec("mctx") is None:
        raise MissingDependencyError("mctx", "games", "learning by play")


def play_games(
    model: BoardPlayer,
    params: Params,
    game: RowGame,
    key: Array,
    count: int,
    *,
    simulations: int,
    random_moves: int,
) -> Played:
    """Plays games from the first move to the last, the model on both sides.

    A game begins with a random number of random moves, so that unusual positions occur, too. Then
    the search chooses, whose random numbers make games differ.

    Args:
        model: judges positions.
        params: its parameters.
        game: the rules.
        key: the random key of all games.
        count: B, how many games are played at once.
        simulations: how many positions the search looks at before a move.
        random_moves: the most random moves at the beginning of a game.
    """
    first, rest = jax.random.split(key)
    num_random = jax.random.randint(first, (count,), 0, random_moves + 1)
    start = jax.tree.map(jnp.asarray, game.start(count))
    turns = start.boards.shape[1]

    def move(positions: Positions, turn: Array) -> tuple[Positions, tuple[Array, ...]]:
        at_random, at_search = jax.random.split(jax.random.fold_in(rest, turn))
        legal = game.legal(positions)
        in_play = legal.any(-1)
        chosen, policy = search(model, params, game, positions, at_search, simulations)
        noise = jax.random.uniform(at_random, legal.shape)
        anything = jnp.argmax(jnp.where(legal, noise, -1.0), axis=-1)
        is_random = turn < num_random
        after = game.after(positions, jnp.where(is_random, anything, chosen))
        kept = jax.tree.map(
            lambda new, old: jnp.where(in_play.reshape(-1, *[1] * (new.ndim - 1)), new, old),
            after,
            positions,
        )
        return kept, (positions.boards, positions.players, policy, in_play, ~is_random)

    end, (boards, players, policies, in_play, judged) = jax.lax.scan(move, start, jnp.arange(turns))
    # The outcome is that of the player who would move next.
    worth = game.outcomes(end)[None] * jnp.where(players == end.players[None], 1, -1)
    return Played(boards, policies, worth.astype(jnp.int32) + 1, in_play, judged)


def search(
    model: BoardPlayer,
    params: Params,
    game: RowGame,
    positions: Positions,
    key: Array,
    simulations: int,
) -> tuple[Int[Array, "B"], Float[Array, "B S"]]:
    """The moves that the search chooses, and the probabilities that it recommends."""
    import mctx

    def evaluated(params: Params, positions: Positions) -> tuple[Array, Array, Array]:
        moves, results = model.apply(
            {"params": params}, positions.boards.astype(jnp.int32), method="evaluate"
        )
        legal = game.legal(positions)
        return jnp.where(legal, moves, _NEVER), expected_result(results), legal

    def step(
        params: Params, key: Array, moves: Array, positions: Positions
    ) -> tuple["mctx.RecurrentFnOutput", Positions]:
        del key
        was_over = ~game.legal(positions).any(-1)
        after = game.after(positions, moves)
        logits, values, legal = evaluated(params, after)
        is_over = ~legal.any(-1)
        # What is good for the other player is bad for the one who has moved.
        reward = jnp.where(is_over & ~was_over, -game.outcomes(after), 0).astype(jnp.float32)
        discount = jnp.where(is_over | was_over, 0.0, -1.0)
        return mctx.RecurrentFnOutput(
            reward=reward,
            discount=discount,
            prior_logits=logits,
            value=jnp.where(is_over | was_over, 0.0, values),
        ), after

    logits, values, legal = evaluated(params, positions)
    found = mctx.gumbel_muzero_policy(
        params,
        key,
        mctx.RootFnOutput(prior_logits=logits, value=values, embedding=positions),
        step,
        num_simulations=simulations,
        invalid_actions=~legal,
        max_num_considered_actions=min(simulations, legal.shape[1]),
    )
    return found.action, found.action_weights
