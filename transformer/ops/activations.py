"""Activation functions by name."""

from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from transformer.limits import OneOf


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The exact Gaussian error linear unit, x Phi(x) (Hendrycks and Gimpel 2016, equation 1).

    Written with `lax.erf`; `jax.nn.gelu(approximate=False)` goes through `erfc`, which the CPU
    backend computes much more slowly.
    """
    return x * 0.5 * (1.0 + lax.erf(x * 0.7071067811865476))


def gelu_tanh(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The tanh approximation of GELU that GPT-2 uses (Hendrycks and Gimpel 2016, section 2)."""
    return jax.nn.gelu(x, approximate=True)


def soft_cap(x: Float[Array, "..."], cap: float) -> Float[Array, "..."]:
    """Squashes numbers into (-cap, cap), almost linear at 0 (Bello et al. 2016, section 2)."""
    return cap * jnp.tanh(x / cap)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}
Activation = Annotated[str, OneOf(ACTIVATIONS)]
