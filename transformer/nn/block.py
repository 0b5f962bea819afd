"""One layer of a transformer: residual branches around attention and feed-forward."""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
from jaxtyping import Array, Bool, Float, Int

from transformer.nn.attention import Local
from transformer.nn.caches import AnyCache, KVCache
from transformer.nn.dropout import Dropout, StochasticDepth
from transformer.nn.linear import named
from transformer.nn.stack import Maker
from transformer.nn.taps import tap
from transformer.ops.masks import Mask
from transformer.sharding import constrain
from transformer.traced import Number

ORDERS = ("pre", "post", "sandwich")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DecoderCache:
    """The state that a block with cross-attention keeps between calls.

    Attributes:
        text: keys and values of the text so far.
        memory: keys and values of the memory; None before the first call, which gets the memory.
    """

    text: KVCache
    memory: KVCache | None = None

    def with_room(self, length: int) -> "DecoderCache":
        """The same with slots for at least `length` positions of the text."""
        return dataclasses.replace(self, text=self.text.with_room(length))


# What a block keeps between calls.
Cache = AnyCache | DecoderCache


class Block(nn.Module):
    """Attention, then feed-forward, each on a residual branch with its own normalisation.

    Attributes:
        attention: makes the attention module.
        feed_forward: makes the feed-forward module, called as `feed_forward(x, valid)`.
        norm: makes a normalisation.
        cross_attention: makes the attention to a memory, between self-attention and feed-forward;
            None leaves it out.
        order: `pre` is `x + branch(norm(x))` (Xiong et al. 2020), `post` is
            `norm(x + branch(x))` (Vaswani et al. 2017, section 3.1), `sandwich` is
            `x + norm(branch(norm(x)))` (Ding et al. 2021, section 3.1).
        dropout_rate: on the output of each branch.
        layer_scale: initial value of learned factors, one for each feature of a branch's output
            (Touvron et al. 2021, CaiT, section 2); None leaves the factors out.
        norm_input: with the order `pre`, whether the input of attention is normalised; False suits
            a first block whose input is normalised already.
    """

    attention: Maker
    feed_forward: Maker
    norm: Maker
    cross_attention: Maker | None = None
    order: str = "pre"
    dropout_rate: Number = 0.0
    layer_scale: float | None = None
    norm_input: bool = True

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        cache: Cache | None = None,
        mask: Mask | None = None,
        positions: Int[Array, "B T"] | None = None,
        slots: Int[Array, "B T"] | None = None,
        memory: Float[Array, "B S D"] | None = None,
        memory_mask: Mask | None = None,
        skip_rate: Float[Array, ""] | None = None,
        bias: Float[Array, "#B #N T _"] | None = None,
        local: Local = None,
        valid: Bool[Array, "B T"] | None = None,
    ) -> tuple[Float[Array, "B T D"], Cache | None]:
        """Runs the branches.

        Args:
            x: the hidden states.
            cache: a `KVCache` or `RollingCache`, or a `DecoderCache` if there is cross-attention.
            mask: the mask of the self-attention.
            positions: the positions of `x`.
            slots: the cache slots of `x`; see `Attention`.
            memory: what cross-attention attends to. A cache keeps its keys and values, so later
                calls need not pass it.
            memory_mask: the mask of the cross-attention.
            skip_rate: the fraction of examples for which a branch is left out in training.
            bias: added to the logits of the self-attention.
            local: whether the self-attention is local; see `Attention`.
            valid: False at padding; used by feed-forward layers in which tokens compete for room,
                see `MixtureOfExperts`.

        Returns:
            The new hidden states and the new cache, as `nn.scan` wants its carry.
        """
        dropout, skip = Dropout(self.dropout_rate), StochasticDepth()

        def dropped(output: Array) -> Array:
            return skip(dropout(output), skip_rate)

        def attend(x: Array) -> tuple[Array, AnyCache | None]:
            text = cache.text if isinstance(cache, DecoderCache) else cache
            attention = self.attention(name="attention")
            where = {"positions": positions, "slots": slots, "local": local}
            return attention(x, mask=mask, cache=text, bias=bias, **where)

        def feed_forward(x: Array) -> tuple[Array, None]:
            return self.feed_forward(name="feed_forward")(x, valid), None

        x = tap(self, "residual_before", x)
        x, new_cache = self._residual("attention", x, attend, dropped)
        if self.cross_attention is not None:
            x = tap(self, "residual_before_cross", x)
            look = self.cross_attention(name="cross_attention")
            source = cache.memory if memory is None else memory

            def look_up(x: Array) -> tuple[Array, KVCache | None]:
                return look(x, source, mask=memory_mask)

            x, kept = self._residual("cross_attention", x, look_up, dropped)
            new_cache = None if cache is None else DecoderCache(new_cache, kept)
        x = tap(self, "residual_middle", x)
        x, _ = self._residual("feed_forward", x, feed_forward, dropped)
        return tap(self, "residual_after", x), new_cache

    def _residual(
        self,
        name: str,
        x: Float[Array, "B T D"],
        branch: Callable[[Array], tuple[Array, AnyCache | None]],
        dropped: Callable[[Array], Array],
    ) -> tuple[Float[Array, "B T D"], AnyCache | None]:
        """Adds the output of a branch, with normalisations in the block's order.

        Args:
            name: the name of the branch.
            x: the hidden states.
            branch: computes the output, and what it keeps between calls.
            dropped: drops a part of the output in training.
        """

        def add(output: Array) -> Array:
            if self.layer_scale is not None:
                init = named(nn.initializers.constant(self.layer_scale), "embed")
                factors = self.param(f"{name}_scale", init, (x.shape[-1],))
                output = output * factors.astype(output.dtype)
            output = tap(self, f"{name}_output", output)
            return constrain(x + dropped(output), "batch", "sequence", "features")

        if name == "attention" and not self.norm_input:
            output, kept = branch(x)
            return add(output), kept
        norm = self.norm(name=f"{name}_norm")
        if self.order == "post":
            output, kept = branch(x)
            return norm(add(output)), kept
        output, kept = branch(norm(x))
        if self.order == "sandwich":
            output = self.norm(name=f"{name}_output_norm")(output)
        return add(output), kept
