"""GPT: the decoder-only transformer (Radford et al. 2018, 2019).

Token and position embeddings are added, pre-norm blocks of causal attention and feed-forward
follow, and a last normalisation before the output layer.
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
from transformer.nn.block import Block
from transformer.nn.dropout import Dropout
from transformer.nn.embeddings import Embedding
from transformer.nn.feed_forward import FeedForward
from transformer.nn.linear import DTYPES, Linear
from transformer.nn.norms import LayerNorm
from transformer.nn.stack import REMAT_POLICIES, Stack
from transformer.ops.activations import ACTIVATIONS
from transformer.ops.attention import IMPLEMENTATIONS, choose_implementation
from transformer.ops.masks import Mask, at_positions, causal, segments


class GPT(nn.Module):
    """A decoder-only language model; its fields are `config.model`.

    Attributes:
        vocab_size: V; None takes the tokenizer's.
        num_layers: L.
        num_heads: N.
        width: D.
        context: the longest sequence, the number of learned positions.
        feed_forward_width: F; None means 4 D.
        activation: of the feed-forward layer.
        qkv_bias: bias on the query, key and value projections.
        tie_embeddings: the token table is also the output layer (Press and Wolf 2017).
        output_bias: bias on the output layer; only without tied embeddings.
        dropout_rate: on embeddings, attention weights and branches.
        dtype: of the computation; parameters stay float32.
        scan_layers: compile one block and loop over it; see `nn.stack.Stack`.
        remat: what the backward pass recomputes; see `nn.stack.Stack`.
        attention: implementation; see `ops.attention.dot_product_attention`.
    """

    vocab_size: int | None = None
    num_layers: int = 12
    num_heads: int = 12
    width: int = 768
    context: int = 1024
    feed_forward_width: int | None = None
    activation: str = "gelu_tanh"
    qkv_bias: bool = True
    tie_embeddings: bool = True
    output_bias: bool = False
    dropout_rate: float = 0.0
    dtype: str = "float32"
    scan_layers: bool = False
    remat: str = "none"
    attention: str = "auto"

    def check(self) -> None:
        """Refuses values that cannot make a model.

        Raises:
            ConfigError: naming the field and what to do.
        """
        require_at_least("model", self, num_layers=1, num_heads=1, width=1, context=2)
        if self.width % self.num_heads:
            raise ConfigError(
                f"config.model.width ({self.width}) is not a multiple of config.model.num_heads "
                f"({self.num_heads}): heads must divide the width."
            )
        if self.tie_embeddings and self.output_bias:
            raise ConfigError(
                "config.model.output_bias needs an output layer of its own: "
                "set config.model.tie_embeddings=False or drop the bias."
            )
        require_fraction("model", self, "dropout_rate")
        require_choice(
            "model",
            self,
            activation=ACTIVATIONS,
            dtype=DTYPES,
            remat=("none", *REMAT_POLICIES),
            attention=("auto", *IMPLEMENTATIONS),
        )

    def setup(self) -> None:
        if self.vocab_size is None:
            raise ConfigError("config.model.vocab_size is missing, and no data have decided it.")
        # GPT-2 scales the layers that write to the residual stream by their number (Radford et
        # al. 2019, section 2.3), so that its variance does not grow with depth.
        residual_init = 0.02 / math.sqrt(2 * self.num_layers)
        block = functools.partial(
            Block,
            attention=functools.partial(
                Attention,
                num_heads=self.num_heads,
                use_bias=self.qkv_bias,
                dropout_rate=self.dropout_rate,
                output_init_scale=residual_init,
                implementation=self.attention,
                dtype=self.dtype,
            ),
            feed_forward=functools.partial(
                FeedForward,
                width=self.feed_forward_width or 4 * self.width,
                activation=self.activation,
                output_init_scale=residual_init,
                dtype=self.dtype,
            ),
            norm=LayerNorm,
            dropout_rate=self.dropout_rate,
        )
        self.token_embedding = Embedding(self.vocab_size, self.width, dtype=self.dtype)
        self.position_embedding = Embedding(
            self.context, self.width, axes=("positions", "embed"), dtype=self.dtype
        )
        self.dropout = Dropout(self.dropout_rate)
        self.blocks = Stack(block, self.num_layers, self.scan_layers, self.remat)
        self.final_norm = LayerNorm()
        if not self.tie_embeddings:
            self.output = Linear(
                (self.vocab_size,), ("embed", "vocab"), self.output_bias, dtype=self.dtype
            )

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        *,
        positions: Int[Array, "B T"] | None = None,
        segment_ids: Int[Array, "B T"] | None = None,
        cache: Any = None,
    ) -> tuple[Float[Array, "B T V"], Any]:
        """Scores every next token.

        Args:
            tokens: the text so far.
            positions: of the tokens; None means 0, 1, 2, ...
            segment_ids: the document of each token, where several share a row.
            cache: from `empty_cache` or an earlier call.

        Returns:
            Logits in float32, and the cache to pass in next time.
        """
        features, cache = self.features(
            tokens, positions=positions, segment_ids=segment_ids, cache=cache
        )
        return self.logits(features), cache

    def features(
        self,
        tokens: Int[Array, "B T"],
        *,
        positions: Int[Array, "B T"] | None = None,
        segment_ids: Int[Array, "B T"] | None = None,
        cache: Any = None,
    ) -> tuple[Float[Array, "B T D"], Any]:
        """The hidden states before the output layer; arguments as in `__call__`."""
        mask: Mask = causal()
        if segment_ids is not None:
            mask = mask & segments(segment_ids)
        if positions is not None:
            # The slots of a cache are positions themselves; without one, keys stand with queries.
            mask = mask & at_positions(positions, positions if cache is None else None)
        else:
            positions = jnp.arange(tokens.shape[1])[None, :]
        x = self.token_embedding(tokens) + self.position_embedding(positions)
        positions = jnp.broadcast_to(positions, tokens.shape)
        x, cache = self.blocks(self.dropout(x), cache, mask=mask, positions=positions)
        return self.final_norm(x), cache

    def logits(self, features: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        """The output layer, in float32."""
        if self.tie_embeddings:
            return jnp.asarray(self.token_embedding.attend(features), jnp.float32)
        return self.output(features).astype(jnp.float32)

    def output_layer(self) -> tuple[Float[Array, "D V"], Float[Array, "V"] | None]:
        """Kernel and bias of the output layer, for losses that visit it in chunks."""
        if self.tie_embeddings:
            return self.token_embedding.embedding.T, None
        parameters = self.output.variables["params"]
        return parameters["kernel"], parameters.get("bias")

    def chosen_attention(self, tokens: Int[Array, "B T"]) -> str:
        """The implementation that training uses for batches of this length."""
        if self.attention != "auto":
            return self.attention
        length = tokens.shape[1]
        return choose_implementation(length, length, has_dropout=self.dropout_rate > 0)

    def empty_cache(self, batch_size: int, length: int) -> Any:
        """A cache with room for `length` positions of `batch_size` texts."""
        head_dim = self.width // self.num_heads
        one = KVCache.empty(batch_size, length, self.num_heads, head_dim, self.dtype)
        if self.scan_layers:
            return jax.tree.map(lambda x: jnp.stack([x] * self.num_layers), one)
        return (one,) * self.num_layers
