"""ModernBERT (Warner et al. 2024).

A bidirectional encoder of pre-norm blocks with gated feed-forward layers, rotary positions and no
biases. Most layers see only a window; every n-th sees everything, with slower rotations. Token
vectors are normalised, so the first block does not normalise its input.
"""

import functools
from typing import Annotated, ClassVar

import numpy as np
from jaxtyping import Array, Float, Int

from transformer.errors import ConfigError
from transformer.limits import AtLeastOne, Count, Layers, OneOf, Positive, Whole, Width
from transformer.nn.block import Block
from transformer.nn.feed_forward import FeedForward
from transformer.nn.heads import POOLINGS, PredictionHead, TextEncoder, TokenBias, pool
from transformer.nn.norms import LayerNorm
from transformer.nn.sizes import decided
from transformer.nn.taps import tap
from transformer.ops.activations import Activation
from transformer.ops.masks import Mask, padding_behind, sliding_window
from transformer.ops.positions import rotary
from transformer.traced import RateOrOff


class ModernBert(TextEncoder):
    """An encoder and its heads; its fields and those of `TextEncoder` are `config.model`.

    The defaults are `base`.

    Attributes:
        feed_forward_width: F.
        window: local layers see only tokens fewer than this many positions away.
        global_every: the first layer and every `global_every`-th after it see everything.
        rope_base: the base of the rotary frequencies in global layers.
        local_rope_base: the base in local layers.
        activation: activation of the gate in feed-forward layers.
        head_activation: activation of the dense layer in each head.
        pooling: the vector that stands for a text: `cls`, the state of its first token, or `mean`,
            the mean over all tokens.
        norm_epsilon: added to variances.
    """

    HEADS: ClassVar[tuple[str, ...]] = ("output", "head", "token_bias")

    num_layers: Layers = 22
    feed_forward_width: Width = 1152
    context: Annotated[int, Whole(3, 1 << 24)] = 8192
    window: Count = 65
    global_every: Count = 3
    rope_base: AtLeastOne = 160_000.0
    local_rope_base: AtLeastOne = 10_000.0
    activation: Activation = "gelu"
    head_activation: Activation = "gelu"
    pooling: Annotated[str, OneOf(POOLINGS)] = "cls"
    norm_epsilon: Positive = 1e-5
    dropout_rate: RateOrOff = 0.0

    def setup(self) -> None:
        norm = functools.partial(LayerNorm, use_bias=False, epsilon=self.norm_epsilon)
        block = functools.partial(
            Block,
            attention=self.compute.attention_layer(
                num_heads=self.num_heads,
                dropout_rate=self.dropout_rate,
                use_bias=False,
                use_output_bias=False,
                position=functools.partial(rotary, base=self.rope_base),
                local_position=functools.partial(rotary, base=self.local_rope_base),
                window=self.window,
            ),
            feed_forward=functools.partial(
                FeedForward,
                width=self.feed_forward_width,
                activation=self.activation,
                gated=True,
                use_bias=False,
                dtype=self.compute.dtype,
            ),
            norm=norm,
            dropout_rate=self.dropout_rate,
        )
        self.surround(block, norm, first=(functools.partial(block, norm_input=False),))
        self.final_norm = norm()
        self.head = PredictionHead(
            self.width, self.head_activation, norm, use_bias=False, dtype=self.compute.dtype
        )
        self.token_bias = TokenBias(decided("vocab_size", self.vocab_size))

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        token_types: Int[Array, "B T"] | None = None,
        lengths: Int[Array, "B"] | None = None,
    ) -> Float[Array, "B T D"]:
        """The hidden states of all tokens; token types are ignored. See `TextEncoder`."""
        mask = None if lengths is None else padding_behind(lengths)
        x = tap(self, "token_embedding", self.token_embedding(tokens))
        x = self.dropout(self.embedding_norm(x))
        local = {"local": np.arange(self.num_layers) % self.global_every != 0}
        x, _ = self.blocks(x, None, local, mask=mask)
        return tap(self, "final", self.finished(x))

    def finished(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Normalised, as pre-norm blocks leave their sum as it is."""
        return self.final_norm(x)

    def pooled(
        self, features: Float[Array, "B T D"], lengths: Int[Array, "B"] | None = None
    ) -> Float[Array, "B D"]:
        """The vector that stands for the whole row."""
        return self.head(pool(self.pooling, features, lengths))

    def of_tokens(self, features: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """The features from which tokens are classified."""
        return self.head(features)

    def of_masked(self, features: Float[Array, "B M D"]) -> Float[Array, "B M D"]:
        """The features from which masked tokens are predicted."""
        return self.head(features)

    def biases(self) -> Float[Array, "V"]:
        """The biases of the output layer of tokens."""
        return self.token_bias()

    def training_mask(self) -> Mask:
        """Padding behind the tokens, and the window of local layers."""
        return super().training_mask() & sliding_window(self.window)

    def check(self) -> None:
        """Refuses values that do not make a model.

        Raises:
            ConfigError: naming the field and what to do.
        """
        super().check()
        if self.width // self.num_heads % 2:
            raise ConfigError(
                f"config.model.width ({self.width}) / config.model.num_heads ({self.num_heads}) is "
                f"not an even number, which rotary positions need."
            )
