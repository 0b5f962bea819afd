"""A decoder whose blocks use rotary positions and ALiBi by turns."""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from transformer.limits import Width
from transformer.nn.block import Block
from transformer.nn.caches import KVCache
from transformer.nn.decoder import DecoderOnly
from transformer.nn.feed_forward import FeedForward
from transformer.nn.norms import RMSNorm
from transformer.nn.stack import Maker
from transformer.ops.alibi import alibi
from transformer.ops.positions import rotary


class AlibiAttention(nn.Module):
    """Attention with a bias that depends on distances.

    Attributes:
        attention: makes the attention.
        num_heads: N.
    """

    attention: Maker
    num_heads: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        *,
        positions: Int[Array, "B T"],
        cache: KVCache | None = None,
        bias: Float[Array, "#B #N T S"] | None = None,
        **rest: Any,
    ) -> tuple[Float[Array, "B T D"], KVCache | None]:
        # The slot of a key in the cache is its position.
        keys = positions if cache is None else jnp.arange(cache.key.shape[2])[None]
        bias = alibi(positions, keys, self.num_heads)
        inner = self.attention(name="heads")
        return inner(x, positions=positions, cache=cache, bias=bias, **rest)


class RotaryAlibi(DecoderOnly):
    """Its fields and those of `DecoderOnly` are `config.model`.

    Attributes:
        feed_forward_width: F.
    """

    feed_forward_width: Width = 64

    def setup(self) -> None:
        attention = self.attention_layer(use_bias=False, implementation="einsum")
        block = functools.partial(
            Block,
            feed_forward=functools.partial(
                FeedForward,
                width=self.feed_forward_width,
                activation="gelu",
                dtype=self.compute.dtype,
            ),
            norm=RMSNorm,
            dropout_rate=self.dropout_rate,
        )
        turning = functools.partial(block, attention=functools.partial(attention, position=rotary))
        fading = functools.partial(
            block,
            attention=functools.partial(AlibiAttention, attention, self.num_heads),
        )
        self.surround((turning, fading), RMSNorm)
