"""Playing games against oneself with a search, inside a compiled step.

The search is Gumbel MuZero (Danihelka et al. 2022, "Policy improvement by planning with Gumbel")
of the library `mctx`, with the real rules in place of a learned model of the game.
"""

import importlib.util
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from transformer.data.games.positions import Positions
from transformer.data.games.rows import RowGame
from transformer.decoding.shapes import rounded_up
from transformer.errors import MissingDependencyError
from transformer.ops.threefry import without_loop
from transformer.tasks.parts.playing import BoardPlayer, expected_result
from transformer.types import Params

# The score of a move that cannot be made.
_NEVER = jnp.finfo(jnp.float32).min


class Played(NamedTuple):
    """T moves on each of B boards, where a new game begins as soon as one is over.

    Attributes:
        boards: `[T, B, S]`, before each move.
        policies: `[T, B, S]`, the probabilities of moves that the search recommends.
        labels: `[T, B]`, the result of the game for the player to move: 0 loss, 1 draw, 2 win.
        judged: `[T, B]`, whether the game came to its end, so that its result is known.
    """

    boards: Int[Array, "T B S"]
    policies: Float[Array, "T B S"]
    labels: Int[Array, "T B"]
    judged: Bool[Array, "T B"]


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
    moves: int,
    simulations: int,
    random_moves: int,
) -> Played:
    """Plays games one after another on each board, the model on both sides.

    Every game begins at a position of `random_openings`; so late positions, of which there are
    most, are not seen less than early ones, and no search is spent on games that are over. Then the
    search chooses, whose random numbers make games differ.

    Args:
        model: judges positions.
        params: its parameters.
        game: the rules.
        key: the random key of all games.
        count: B, on how many boards it plays at the same time.
        moves: T, how many moves it makes on each board.
        simulations: how many positions the search looks at before a move.
        random_moves: the most random moves before a game.
    """
    at_openings, at_search = jax.random.split(key)
    openings = random_openings(game, at_openings, (moves + 1) * count, random_moves)
    openings = Positions(*(rows.reshape(-1, count, *rows.shape[1:]) for rows in openings))
    first, later = openings.take(0), openings.take(slice(1, None))

    def move(
        positions: Positions, given: tuple[Array, Positions]
    ) -> tuple[Positions, tuple[Array, ...]]:
        turn, opening = given
        key = jax.random.fold_in(at_search, turn)
        chosen, policy = search(model, params, game, positions, key, simulations)
        after = game.after(positions, chosen)
        over = ~game.legal(after).any(-1)
        # The outcome is that of the player who would move next.
        worth = -game.outcomes(after).astype(jnp.int32)
        return _chosen(over, opening, after), (positions.boards, policy, over, worth)

    def result(
        later: tuple[Array, Array], here: tuple[Array, Array]
    ) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        (judged, worth), (over, final) = later, here
        found = judged | over, jnp.where(over, final, -worth)
        return found, found

    _, (boards, policies, over, worth) = jax.lax.scan(move, first, (jnp.arange(moves), later))
    unknown = jnp.zeros(count, bool), jnp.zeros(count, jnp.int32)
    _, (judged, worth) = jax.lax.scan(result, unknown, (over, worth), reverse=True)
    return Played(boards, policies, worth + 1, judged)


def random_openings(game: RowGame, key: Array, count: int, random_moves: int) -> Positions:
    """Positions after random moves, in none of which the game is over.

    The number of moves is random, too, each from 0 to `random_moves` equally probable. A move that
    would end the game is not made.
    """
    at_length, at_moves = jax.random.split(key)
    length = jax.random.randint(at_length, (count,), 0, random_moves + 1)

    def move(positions: Positions, turn: Array) -> tuple[Positions, None]:
        legal = game.legal(positions)
        noise = jax.random.uniform(jax.random.fold_in(at_moves, turn), legal.shape)
        after = game.after(positions, jnp.argmax(jnp.where(legal, noise, -1.0), axis=-1))
        goes_on = (turn < length) & game.legal(after).any(-1)
        return _chosen(goes_on, after, positions), None

    start = jax.tree.map(jnp.asarray, game.start(count))
    return jax.lax.scan(move, start, jnp.arange(random_moves))[0]


def _chosen(where: Bool[Array, "B"], one: Positions, other: Positions) -> Positions:
    """The one position where that holds, elsewhere the other."""
    return Positions(
        jnp.where(where[:, None], one.boards, other.boards),
        jnp.where(where, one.players, other.players),
    )


def search(
    model: BoardPlayer,
    params: Params,
    game: RowGame,
    positions: Positions,
    key: Array,
    simulations: int,
    gumbel_scale: float = 1.0,
) -> tuple[Int[Array, "B"], Float[Array, "B S"]]:
    """The moves that the search chooses, and the probabilities that it recommends.

    Args:
        model: judges positions.
        params: its parameters.
        game: the rules.
        positions: where the games stand.
        key: the random key of the noise.
        simulations: how many positions the search looks at.
        gumbel_scale: how much noise there is in the choice: 1 to explore, 0 for the best move.
    """
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
        without_loop(key),
        mctx.RootFnOutput(prior_logits=logits, value=values, embedding=positions),
        step,
        num_simulations=simulations,
        invalid_actions=~legal,
        max_num_considered_actions=min(simulations, legal.shape[1]),
        gumbel_scale=gumbel_scale,
    )
    return found.action, found.action_weights


_compiled = jax.jit(search, static_argnums=(0, 2, 5, 6))


def searched_moves(
    model: BoardPlayer, params: Params, game: RowGame, positions: Positions, simulations: int
) -> Int[np.ndarray, "B"]:
    """The best moves that the search finds, computed in few shapes.

    Args:
        model: judges positions.
        params: its parameters.
        game: the rules.
        positions: B positions in which the game is not over.
        simulations: how many positions the search looks at before a move.
    """
    count = len(positions.players)
    # Rows are filled up with first positions, so that few programs are compiled.
    more = game.start(rounded_up(count) - count)
    rows = Positions(*(np.concatenate(pair) for pair in zip(positions, more, strict=True)))
    moves, _ = _compiled(model, params, game, rows, jax.random.key(0), simulations, 0.0)
    return np.asarray(moves)[:count]
