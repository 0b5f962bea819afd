"""Learned biases of attention by relative position."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from transformer.nn.linear import named
from transformer.ops.relative_positions import relative_buckets


class RelativePositions(nn.Module):
    """One number for each head and bucket of relative positions (Raffel et al. 2020, section 2.1).

    Attributes:
        num_heads: N.
        bidirectional: whether queries see keys after them.
        num_buckets: the number of buckets of distances.
        max_distance: all distances from here on share one bucket.
        init_scale: standard deviation of the table at initialisation.
    """

    num_heads: int
    bidirectional: bool
    num_buckets: int = 32
    max_distance: int = 128
    init_scale: float = 0.02

    @nn.compact
    def __call__(
        self, queries: Int[Array, "#B T"], keys: Int[Array, "#B S"]
    ) -> Float[Array, "#B N T S"]:
        init = named(nn.initializers.normal(self.init_scale), None, "heads")
        table = self.param("embedding", init, (self.num_buckets, self.num_heads))
        buckets = relative_buckets(
            queries,
            keys,
            num_buckets=self.num_buckets,
            max_distance=self.max_distance,
            bidirectional=self.bidirectional,
        )
        return jnp.moveaxis(jnp.take(table, buckets, axis=0), -1, 1)
