"""Dropout of values and of whole branches: active exactly when its random key is passed in."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from transformer.traced import Number, is_zero


class Dropout(nn.Module):
    """Zeroes a fraction of its input and scales up the rest (Srivastava et al. 2014).

    There is no train flag: `apply(..., rngs={"dropout": key})` drops, `apply` without it does not.

    Attributes:
        rate: the fraction of values that are zeroed.
    """

    rate: Number

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        if is_zero(self.rate) or not self.has_rng("dropout"):
            return x
        kept = jax.random.bernoulli(self.make_rng("dropout"), 1.0 - self.rate, x.shape)
        return jnp.where(kept, x / jnp.asarray(1.0 - self.rate, x.dtype), 0.0)


class StochasticDepth(nn.Module):
    """Leaves out a branch for some examples, and scales it up for the others (Huang et al. 2016).

    Active exactly when `Dropout` is.
    """

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], rate: Float[Array, ""] | None
    ) -> Float[Array, "B T D"]:
        if rate is None or not self.has_rng("dropout"):
            return x
        kept = jax.random.bernoulli(self.make_rng("dropout"), 1.0 - rate, (x.shape[0], 1, 1))
        return jnp.where(kept, x / (1.0 - rate).astype(x.dtype), 0.0)
