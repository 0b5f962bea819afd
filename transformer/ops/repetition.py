"""Guessing how a text goes on from what it said before."""

import jax.numpy as jnp
from jaxtyping import Array, Int


def continued_as_before(
    tokens: Int[Array, "S"], length: Int[Array, ""], longest: int, count: int
) -> Int[Array, "count"]:
    """What followed the last tokens of a text when they stood in it before (Saxena 2023).

    Of all earlier places the one counts behind which most of the last tokens are the same, of equal
    ones the latest. A guess that reaches the end of the text begins again at that place, so that a
    text that repeats itself goes on doing so.

    Args:
        tokens: the text, and then anything.
        length: the number of its tokens, at least one.
        longest: at most so many of the last tokens are compared.
        count: the number of tokens to guess.
    """
    places = jnp.arange(tokens.shape[0])
    same, alike = jnp.zeros_like(places), places > 0
    for back in range(1, longest + 1):
        before = jnp.where(places >= back, tokens[jnp.maximum(places - back, 0)], -1)
        alike &= before == jnp.where(length >= back, tokens[jnp.maximum(length - back, 0)], -2)
        same += alike
    worth = jnp.where(places < length, same * tokens.shape[0] + places, -1)
    place = jnp.argmax(worth)
    return tokens[place + jnp.arange(count) % jnp.maximum(length - place, 1)]
