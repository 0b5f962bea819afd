"""Models that act, and the episodes in which they do."""

import functools
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from transformer.data.games.rooms import MOVES, PLACED, Episodes, Rooms, Walk
from transformer.ops.threefry import without_loop
from transformer.tasks.parts.models import Model
from transformer.types import Params


@runtime_checkable
class Decides(Model, Protocol):
    """Scores actions by the return that it is asked for; see `models/decision_transformer.py`."""

    num_features: int | None
    num_turns: int | None

    def decide(
        self,
        before: Int[Array, "B T"],
        returns: Float[Array, "B T"],
        asked: Bool[Array, "B T"],
        observations: Int[Array, "B T O"],
        turns: Int[Array, "B T"] | None = None,
        cache: PyTree = None,
    ) -> tuple[Float[Array, "B T A"], PyTree]:
        """Scores of the action of each turn, and the cache."""

    def empty_cache(self, batch_size: int) -> PyTree:
        """A cache without entries."""


def act(
    model: Decides,
    params: Params,
    rooms: Rooms,
    *,
    asked: float | None,
    temperature: float,
    count: int,
    seed: int,
) -> Episodes:
    """Lets a model act, with moves drawn by its probabilities.

    The return-to-go falls by every reward (Chen et al. 2021, algorithm 1).

    Args:
        model: the model.
        params: its parameters.
        rooms: the rules.
        asked: the return that it is asked for; None hides it.
        temperature: divides the scores of the moves; below 1, probable moves become more so.
        count: B.
        seed: the seed of the rooms and of the moves. Episodes with the same seed have the same
            rooms.
    """
    hidden = asked is None
    wish = (0.0, False) if hidden else (asked, True)
    return jax.tree.map(np.asarray, _acted(model, rooms, count, params, *wish, temperature, seed))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _acted(
    model: Decides,
    rooms: Rooms,
    count: int,
    params: Params,
    asked: Float[Array, ""] | float,
    is_asked: Bool[Array, ""] | bool,
    temperature: Float[Array, ""] | float,
    seed: Int[Array, ""] | int,
) -> Episodes:
    at_places, at_moves = jax.random.split(without_loop(jax.random.key(seed)))
    places = rooms.places(jax.random.uniform(at_places, (count, PLACED)))

    def step(
        carry: tuple[Walk, Array, Array, PyTree], turn: Array
    ) -> tuple[tuple[Walk, Array, Array, PyTree], Array]:
        walk, before, returns, cache = carry
        logits, cache = model.apply(
            {"params": params},
            before[:, None],
            returns[:, None],
            jnp.full((count, 1), is_asked),
            rooms.observe(places, walk, turn)[:, None],
            jnp.full((count, 1), turn),
            cache,
            method="decide",
        )
        key = jax.random.fold_in(at_moves, turn)
        action = jax.random.categorical(key, logits[:, 0] / temperature)
        after, paid = rooms.walk(places, walk, turn, action)
        return (after, action, returns - paid, cache), rooms.reached(walk.square, action)

    nothing = jnp.full((count,), len(MOVES))
    first = rooms.enter(places), nothing, jnp.full((count,), asked), model.empty_cache(count)
    (walk, *_), squares = jax.lax.scan(step, first, jnp.arange(rooms.length))
    return Episodes(places, squares.T, walk.over)
