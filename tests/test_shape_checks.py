"""Shapes are checked in every call of the package, and sizes of one letter against each other."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import pytest
from beartype import beartype
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Array, Float, TypeCheckError

from tests.shape_checks import jaxtyped
from transformer.ops.attention import dot_product_attention

checked = jaxtyped(typechecker=beartype)


def test_a_function_of_the_package_refuses_other_shapes():
    query, other = jnp.zeros((2, 5, 4, 8)), jnp.zeros((2, 7, 4, 6))
    dot_product_attention(query, query, query)
    for wrong in ((query, other, other), (query[0], query, query), (query, query, query[:1])):
        with pytest.raises(BeartypeCallHintViolation):
            dot_product_attention(*wrong)
        with pytest.raises(BeartypeCallHintViolation):
            jax.eval_shape(dot_product_attention, *wrong)


@checked
def joined(
    x: Float[Array, "B T"], y: Float[Array, "B S"], *, cut: int = 0
) -> Float[Array, "B T+S"]:
    return jnp.concatenate([x, inner(y)], axis=1)[:, cut:]


@checked
def inner(y: Float[Array, "T B"]) -> Float[Array, "T B"]:
    """The same letters mean other sizes in another call."""
    return y


def test_letters_are_compared_within_one_call():
    assert joined(jnp.zeros((2, 3)), jnp.zeros((2, 4))).shape == (2, 7)
    with pytest.raises(BeartypeCallHintViolation, match="y"):
        joined(jnp.zeros((2, 3)), jnp.zeros((3, 4)))
    with pytest.raises(BeartypeCallHintViolation, match="return"):
        joined(jnp.zeros((2, 3)), jnp.zeros((2, 4)), cut=1)
    # What failed leaves no sizes behind.
    assert joined(jnp.zeros((5, 1)), jnp.zeros((5, 1))).shape == (5, 2)


def test_what_yields_is_checked_when_it_is_called():
    @checked
    def rows(x: Float[Array, "B T"], count: Float[Array, "B"]) -> Iterator[Float[Array, "T"]]:
        yield from x

    assert len(list(rows(jnp.zeros((2, 3)), jnp.zeros(2)))) == 2
    with pytest.raises(TypeCheckError):
        rows(jnp.zeros((2, 3)), jnp.zeros(3))


def test_a_size_may_be_the_value_of_a_parameter():
    @checked
    def wide(x: Float[Array, "B {width}"], width: int) -> Float[Array, "B {width}"]:
        return x

    assert wide(jnp.zeros((2, 3)), 3).shape == (2, 3)
    with pytest.raises(TypeCheckError):
        wide(jnp.zeros((2, 3)), 4)
