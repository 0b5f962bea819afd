"""One layer of a transformer: residual branches around attention and feed-forward."""

from collections.abc import Callable

import flax.linen as nn
from jaxtyping import Array, Float, Int

from transformer.nn.attention import KVCache
from transformer.nn.dropout import Dropout
from transformer.ops.masks import Mask

ORDERS = ("pre", "post")


class Block(nn.Module):
    """Attention, then feed-forward, each on a residual branch with its own normalisation.

    Attributes:
        attention: makes the attention module.
        feed_forward: makes the feed-forward module.
        norm: makes a normalisation.
        order: `pre` is `x + branch(norm(x))` (Xiong et al. 2020), `post` is
            `norm(x + branch(x))` (Vaswani et al. 2017, section 3.1).
        dropout_rate: on the output of each branch.
    """

    attention: Callable[..., nn.Module]
    feed_forward: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    order: str = "pre"
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        cache: KVCache | None = None,
        mask: Mask | None = None,
        positions: Int[Array, "B T"] | None = None,
    ) -> tuple[Float[Array, "B T D"], KVCache | None]:
        """Returns the new hidden states and the new cache, as `nn.scan` wants its carry."""
        attention = self.attention(name="attention")
        attention_norm = self.norm(name="attention_norm")
        feed_forward = self.feed_forward(name="feed_forward")
        feed_forward_norm = self.norm(name="feed_forward_norm")
        dropout = Dropout(self.dropout_rate)

        if self.order == "pre":
            branch, cache = attention(
                attention_norm(x), mask=mask, positions=positions, cache=cache
            )
            x = x + dropout(branch)
            x = x + dropout(feed_forward(feed_forward_norm(x)))
        else:
            branch, cache = attention(x, mask=mask, positions=positions, cache=cache)
            x = attention_norm(x + dropout(branch))
            x = feed_forward_norm(x + dropout(feed_forward(x)))
        return x, cache
