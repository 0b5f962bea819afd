"""One vector for many tokens."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from transformer.nn.linear import named
from transformer.nn.stack import Maker


class AttentionPooling(nn.Module):
    """A learned query looks at all tokens, and a feed-forward branch follows.

    The head of Zhai et al. 2022 ("Scaling Vision Transformers", section 3.1), after the pooling of
    Lee et al. 2019 (Set Transformer, section 3.2).

    Attributes:
        attention: makes the attention module.
        feed_forward: makes the feed-forward module.
        norm: makes the normalisation in front of the feed-forward branch.
    """

    attention: Maker
    feed_forward: Maker
    norm: Maker

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B D"]:
        width = x.shape[-1]
        init = named(nn.initializers.normal(0.02), None, "embed")
        query = self.param("query", init, (1, width)).astype(x.dtype)
        queries = jnp.broadcast_to(query, (x.shape[0], 1, width))
        found, _ = self.attention(name="attention")(queries, x)
        branch = self.feed_forward(name="feed_forward")
        return (found + branch(self.norm(name="feed_forward_norm")(found)))[:, 0]
