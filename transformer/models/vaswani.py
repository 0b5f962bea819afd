"""The Transformer: the encoder-decoder of "Attention Is All You Need" (Vaswani et al. 2017).

The encoder reads the source in both directions. The decoder reads the target from left to right
and, in each layer, looks at what the encoder made of the source. One table embeds source and target
and is the output layer (section 3.4); positions are sines and cosines (section 3.5).
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from transformer.checks import require_at_least, require_choice, require_fraction
from transformer.errors import ConfigError
from transformer.nn.attention import Attention, KVCache
from transformer.nn.block import ORDERS, Block, DecoderCache
from transformer.nn.dropout import Dropout
from transformer.nn.embeddings import Embedding
from transformer.nn.feed_forward import FeedForward
from transformer.nn.linear import DTYPES
from transformer.nn.norms import LayerNorm
from transformer.nn.stack import REMAT_POLICIES, Stack
from transformer.ops.activations import ACTIVATIONS
from transformer.ops.attention import IMPLEMENTATIONS, choose_implementation
from transformer.ops.masks import Mask, causal, segments
from transformer.ops.positions import sinusoidal


class Vaswani(nn.Module):
    """An encoder-decoder for sequence to sequence; its fields are `config.model`.

    The defaults are `base` of the paper's table 3.

    Attributes:
        vocab_size: V, of source and target together; None takes the tokenizer's.
        num_encoder_layers: blocks of the encoder.
        num_decoder_layers: blocks of the decoder.
        num_heads: N.
        width: D, even.
        feed_forward_width: F.
        norm_order: `post` as in the paper, or `pre`, which trains deep stacks without warmup
            (Xiong et al. 2020) and needs one more normalisation after each stack.
        activation: of the feed-forward layer.
        dropout_rate: on embeddings and branches (section 5.4).
        dtype: of the computation; parameters stay float32.
        scan_layers: compile one block and loop over it; see `nn.stack.Stack`.
        remat: what the backward pass recomputes; see `nn.stack.Stack`.
        attention: implementation; see `ops.attention.dot_product_attention`.
    """

    vocab_size: int | None = None
    num_encoder_layers: int = 6
    num_decoder_layers: int = 6
    num_heads: int = 8
    width: int = 512
    feed_forward_width: int = 2048
    norm_order: str = "post"
    activation: str = "relu"
    dropout_rate: float = 0.1
    dtype: str = "float32"
    scan_layers: bool = False
    remat: str = "none"
    attention: str = "auto"

    def check(self) -> None:
        """Refuses values that cannot make a model.

        Raises:
            ConfigError: naming the field and what to do.
        """
        require_at_least(
            "model",
            self,
            num_encoder_layers=1,
            num_decoder_layers=1,
            num_heads=1,
            width=1,
            feed_forward_width=1,
        )
        if self.width % self.num_heads or self.width % 2:
            raise ConfigError(
                f"config.model.width ({self.width}) must be even, for sines and cosines, and a "
                f"multiple of config.model.num_heads ({self.num_heads}): heads must divide the "
                f"width."
            )
        require_fraction("model", self, "dropout_rate")
        require_choice(
            "model",
            self,
            norm_order=ORDERS,
            activation=ACTIVATIONS,
            dtype=DTYPES,
            remat=("none", *REMAT_POLICIES),
            attention=("auto", *IMPLEMENTATIONS),
        )

    def setup(self) -> None:
        if self.vocab_size is None:
            raise ConfigError("config.model.vocab_size is missing, and no data have decided it.")
        # Glorot and Bengio 2010, equation 16: sqrt(2 / (inputs + outputs)).
        square = math.sqrt(1 / self.width)
        rectangle = math.sqrt(2 / (self.width + self.feed_forward_width))
        attention = functools.partial(
            Attention,
            num_heads=self.num_heads,
            init_scale=square,
            output_init_scale=square,
            implementation=self.attention,
            dtype=self.dtype,
        )
        encoder_block = functools.partial(
            Block,
            attention=attention,
            feed_forward=functools.partial(
                FeedForward,
                width=self.feed_forward_width,
                activation=self.activation,
                init_scale=rectangle,
                output_init_scale=rectangle,
                dtype=self.dtype,
            ),
            norm=LayerNorm,
            order=self.norm_order,
            dropout_rate=self.dropout_rate,
        )
        decoder_block = functools.partial(encoder_block, cross_attention=attention)
        # Of variance 1 / D, so that it is 1 after the scaling by sqrt(D).
        self.token_embedding = Embedding(
            self.vocab_size,
            self.width,
            initializer=nn.initializers.normal(square),
            dtype=self.dtype,
        )
        self.dropout = Dropout(self.dropout_rate)
        layers = (self.scan_layers, self.remat)
        self.encoder = Stack(encoder_block, self.num_encoder_layers, *layers)
        self.decoder = Stack(decoder_block, self.num_decoder_layers, *layers)
        if self.norm_order == "pre":
            self.encoder_norm, self.decoder_norm = LayerNorm(), LayerNorm()

    def __call__(
        self,
        source: Int[Array, "B S"],
        target: Int[Array, "B T"],
        **layout: Any,
    ) -> Float[Array, "B T V"]:
        """Scores every next token of the target, in float32; arguments as in `features`."""
        return self.logits(self.features(source, target, **layout))

    def features(
        self,
        source: Int[Array, "B S"],
        target: Int[Array, "B T"],
        *,
        source_segments: Int[Array, "B S"] | None = None,
        target_segments: Int[Array, "B T"] | None = None,
        source_positions: Int[Array, "B S"] | None = None,
        target_positions: Int[Array, "B T"] | None = None,
    ) -> Float[Array, "B T D"]:
        """The hidden states before the output layer.

        Args:
            source: what is read.
            target: what is written, one place behind: its first token begins the text.
            source_segments: which pair each token belongs to, where several share a row; 0 is
                padding. None means one pair to a row, without padding.
            target_segments: the same of the target.
            source_positions: of the tokens within their sentences; None means 0, 1, 2, ...
            target_positions: the same of the target.

        Raises:
            ValueError: if only one side has segments.
        """
        if (source_segments is None) != (target_segments is None):
            raise ValueError("segments of one side alone say nothing about the other: give both.")
        memory = self.encode(source, source_segments, source_positions)
        mask, memory_mask = causal(), None
        if target_segments is not None:
            mask = mask & segments(target_segments)
            memory_mask = segments(target_segments, source_segments)
        features, _ = self.decode(
            target, memory, mask=mask, memory_mask=memory_mask, positions=target_positions
        )
        return features

    def encode(
        self,
        source: Int[Array, "B S"],
        source_segments: Int[Array, "B S"] | None = None,
        positions: Int[Array, "B S"] | None = None,
    ) -> Float[Array, "B S D"]:
        """The memory of a source; arguments as in `features`."""
        mask = None if source_segments is None else segments(source_segments)
        x, _ = self.encoder(self._embed(source, positions), mask=mask)
        return self.encoder_norm(x) if self.norm_order == "pre" else x

    def decode(
        self,
        target: Int[Array, "B T"],
        memory: Float[Array, "B S D"] | None,
        *,
        mask: Mask,
        memory_mask: Mask | None,
        positions: Int[Array, "B T"] | None = None,
        slots: Int[Array, "B T"] | None = None,
        cache: Any = None,
    ) -> tuple[Float[Array, "B T D"], Any]:
        """The hidden states of the target, and the cache to pass in next time.

        Args:
            target: the text, or with a cache what is new of it.
            memory: from `encode`; None if the cache has seen it.
            mask: which tokens of the text each sees.
            memory_mask: which tokens of the source each sees.
            positions: of the tokens; None means 0, 1, 2, ...
            slots: of the cache; None means the positions.
            cache: from `empty_cache` or an earlier call.
        """
        x, cache = self.decoder(
            self._embed(target, positions),
            cache,
            mask=mask,
            positions=positions,
            slots=slots,
            memory=memory,
            memory_mask=memory_mask,
        )
        return (self.decoder_norm(x) if self.norm_order == "pre" else x), cache

    def logits(self, features: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        """The output layer, in float32."""
        return jnp.asarray(self.token_embedding.attend(features), jnp.float32)

    def output_layer(self) -> tuple[Float[Array, "D V"], None]:
        """Kernel and bias of the output layer, for losses that visit it in chunks."""
        return self.token_embedding.embedding.T, None

    def chosen_attention(self, source: Int[Array, "B S"], target: Int[Array, "B T"]) -> str:
        """The implementation that training uses for batches of these lengths."""
        if self.attention != "auto":
            return self.attention
        return choose_implementation(target.shape[1], source.shape[1])

    def empty_cache(self, batch_size: int, length: int) -> Any:
        """A cache with room for `length` tokens of `batch_size` targets."""
        head_dim = self.width // self.num_heads
        text = KVCache.empty(batch_size, length, self.num_heads, head_dim, self.dtype)
        if self.scan_layers:
            return DecoderCache(
                jax.tree.map(lambda x: jnp.stack([x] * self.num_decoder_layers), text)
            )
        return (DecoderCache(text),) * self.num_decoder_layers

    def _embed(
        self, tokens: Int[Array, "B T"], positions: Int[Array, "B T"] | None
    ) -> Float[Array, "B T D"]:
        """Scaled embeddings plus positions (sections 3.4 and 3.5)."""
        if positions is None:
            positions = jnp.arange(tokens.shape[1])[None, :]
        x = self.token_embedding(tokens) * math.sqrt(self.width)
        return self.dropout(x + sinusoidal(positions, self.width).astype(self.dtype))
