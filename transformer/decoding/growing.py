"""Writing with a cache that grows with the texts, inside one compiled program."""

from collections.abc import Callable
from typing import Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from transformer.nn.encoder_decoder import Caches, with_room


@runtime_checkable
class Writing(Protocol):
    """What is known between two steps; a named tuple."""

    @property
    def step(self) -> Int[Array, ""]:
        """How many steps were made."""
        ...

    @property
    def cache(self) -> Caches:
        """Has slots for some more."""
        ...

    @property
    def done(self) -> Bool[Array, "B"]:
        """Whether each row has ended."""
        ...

    def _replace(self, **fields: Caches) -> "Writing": ...


State = TypeVar("State", bound=Writing)


def rooms(most: int, *, least: int) -> tuple[int, ...]:
    """How many steps a cache has room for as it grows: `least`, four times that, ..., `most`.

    Each step attends to all slots, and most texts need only a few. But the step is compiled for
    each size, so there are few sizes.
    """
    sizes = []
    while least < most:
        sizes.append(least)
        least *= 4
    return (*sizes, most)


def write_growing(
    advance: Callable[[State], State],
    state: State,
    steps: tuple[int, ...],
    slots: Callable[[int], int],
) -> State:
    """Advances until all rows are done, or until the last of `steps`.

    Args:
        advance: makes a step.
        state: the first.
        steps: from `rooms`; the cache of the first state has room for the first of them.
        slots: the size of a cache with room for so many steps.
    """
    for room in steps:

        def goes_on(state: State, room: int = room) -> Bool[Array, ""]:
            return ~jnp.all(state.done) & (state.step < room)

        state = state._replace(cache=with_room(state.cache, slots(room)))
        state = jax.lax.while_loop(goes_on, advance, state)
    return state
