"""ModernBERT (Warner et al. 2024).

A bidirectional encoder of pre-norm blocks with gated feed-forward layers, rotary positions and no
biases. Most layers see only a window; every n-th sees everything, with slower rotations. Token
vectors are normalised, so the first block does not normalise its input.
"""

import functools
from typing import Annotated, Any, ClassVar

import numpy as np
from jaxtyping import Array, Float, Int

from transformer.errors import ConfigError
from transformer.limits import (
    AtLeastOne,
    Count,
    Heads,
    Layers,
    OneOf,
    Outputs,
    Positive,
    VocabSize,
    Whole,
    Width,
)
from transformer.nn.attention import Attention, usual_implementation
from transformer.nn.block import Block
from transformer.nn.dropout import Dropout
from transformer.nn.embeddings import Embedding
from transformer.nn.feed_forward import FeedForward
from transformer.nn.heads import POOLINGS, PredictionHead, TextEncoder, TokenBias, pool
from transformer.nn.linear import DType, Linear
from transformer.nn.norms import LayerNorm
from transformer.nn.stack import Remat, Stack, require_compilable
from transformer.nn.taps import tap
from transformer.ops.activations import Activation
from transformer.ops.attention import Implementation
from transformer.ops.masks import Mask, padding_behind, sliding_window
from transformer.ops.positions import rotary
from transformer.traced import RateOrOff, is_zero


class ModernBert(TextEncoder):
    """An encoder and its heads; its fields are `config.model`. The defaults are `base`.

    Attributes:
        vocab_size: V; None takes the size of the tokenizer's vocabulary.
        num_outputs: the number of classes, or other outputs, of the fine-tuning head; None takes
            the number that the data have.
        num_layers: L.
        num_heads: N.
        width: D.
        feed_forward_width: F.
        context: the length of the longest sequence.
        window: local layers see only tokens fewer than this many positions away.
        global_every: the first layer and every `global_every`-th after it see everything.
        rope_base: the base of the rotary frequencies in global layers.
        local_rope_base: the base in local layers.
        activation: activation of the gate in feed-forward layers.
        head_activation: activation of the dense layer in each head.
        pooling: the vector that stands for a text: `cls`, the state of its first token, or `mean`,
            the mean over all tokens.
        norm_epsilon: added to variances.
        dropout_rate: on embeddings, attention weights, branches and in front of the heads.
        dtype: of the computation; parameters stay float32.
        scan_layers: compile one block and loop over it; see `nn.stack.Stack`.
        remat: what the backward pass recomputes; see `nn.stack.Stack`.
        attention: the implementation of attention; see `ops.attention.dot_product_attention`.
    """

    HEADS: ClassVar[tuple[str, ...]] = ("output", "head", "token_bias")

    vocab_size: VocabSize | None = None
    num_outputs: Outputs | None = None
    num_layers: Layers = 22
    num_heads: Heads = 12
    width: Width = 768
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
    dtype: DType = "float32"
    scan_layers: bool = False
    remat: Remat = "none"
    attention: Implementation = "auto"

    def setup(self) -> None:
        if self.vocab_size is None:
            raise ConfigError("config.model.vocab_size is missing, and no data have decided it.")
        norm = functools.partial(LayerNorm, use_bias=False, epsilon=self.norm_epsilon)
        block = functools.partial(
            Block,
            attention=functools.partial(
                Attention,
                num_heads=self.num_heads,
                use_bias=False,
                use_output_bias=False,
                position=functools.partial(rotary, base=self.rope_base),
                local_position=functools.partial(rotary, base=self.local_rope_base),
                window=self.window,
                dropout_rate=self.dropout_rate,
                implementation=self.attention,
                dtype=self.dtype,
            ),
            feed_forward=functools.partial(
                FeedForward,
                width=self.feed_forward_width,
                activation=self.activation,
                gated=True,
                use_bias=False,
                dtype=self.dtype,
            ),
            norm=norm,
            dropout_rate=self.dropout_rate,
        )
        first = functools.partial(block, norm_input=False)
        self.token_embedding = Embedding(self.vocab_size, self.width, dtype=self.dtype)
        self.embedding_norm = norm()
        self.dropout = Dropout(self.dropout_rate)
        self.blocks = Stack(block, self.num_layers, self.scan_layers, self.remat, (first,))
        self.final_norm = norm()
        self.head = PredictionHead(
            self.width, self.head_activation, norm, use_bias=False, dtype=self.dtype
        )
        self.token_bias = TokenBias(self.vocab_size)
        self.output = Linear((self.num_outputs or 0,), ("embed", None), dtype=self.dtype)

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
        return tap(self, "final", self.final_norm(x))

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

    def chosen_attention(self, tokens: Int[Array, "B T"] | None = None, *rest: Any) -> str:
        """The attention implementation that training uses for batches of this (or a usual) length.

        Raises:
            ConfigError: if the implementation that the config asks for does not support it.
        """
        length = {} if tokens is None else {"length": tokens.shape[1]}
        return usual_implementation(
            self.attention,
            (self.num_heads, self.width // self.num_heads),
            self.dtype,
            **length,
            mask=Mask(key_lengths=True) & sliding_window(self.window),
            has_dropout=not is_zero(self.dropout_rate),
        )

    def check(self) -> None:
        """Refuses values that do not make a model.

        Raises:
            ConfigError: naming the field and what to do.
        """
        if self.width % (2 * self.num_heads):
            raise ConfigError(
                f"config.model.width ({self.width}) / config.model.num_heads ({self.num_heads}) is "
                f"no even number, as rotary positions need."
            )
        require_compilable(self.scan_layers, num_layers=self.num_layers)
        self.chosen_attention()
