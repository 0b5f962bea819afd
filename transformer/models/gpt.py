"""GPT: the decoder-only transformer (Radford et al. 2018, 2019).

Token and position embeddings are added; then come pre-norm blocks of causal attention and
feed-forward, a final normalisation and the output layer.
"""

import functools
import math

from jaxtyping import Array, Float, Int

from transformer.errors import ConfigError
from transformer.limits import Positive, Width
from transformer.nn.attention import Attention
from transformer.nn.block import Block
from transformer.nn.decoder import DecoderOnly
from transformer.nn.dropout import Dropout
from transformer.nn.embeddings import Embedding
from transformer.nn.feed_forward import FeedForward
from transformer.nn.linear import Linear
from transformer.nn.norms import LayerNorm
from transformer.nn.stack import Stack
from transformer.nn.taps import tap
from transformer.ops.activations import Activation


class GPT(DecoderOnly):
    """A decoder-only language model; its fields and those of `DecoderOnly` are `config.model`.

    Attributes:
        feed_forward_width: F; None means 4 D.
        activation: activation of the feed-forward layer.
        norm_epsilon: added to variances.
        qkv_bias: bias on the query, key and value projections.
        output_bias: bias on the output layer; only without tied embeddings.
    """

    feed_forward_width: Width | None = None
    activation: Activation = "gelu_tanh"
    norm_epsilon: Positive = 1e-5
    qkv_bias: bool = True
    output_bias: bool = False

    def setup(self) -> None:
        if self.vocab_size is None:
            raise ConfigError("config.model.vocab_size is missing, and no data have decided it.")
        # GPT-2 scales the layers that write to the residual stream by their number (Radford et
        # al. 2019, section 2.3), so that its variance does not grow with depth.
        residual_init = 0.02 / math.sqrt(2 * self.num_layers)
        norm = functools.partial(LayerNorm, epsilon=self.norm_epsilon)
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
            norm=norm,
            dropout_rate=self.dropout_rate,
        )
        self.token_embedding = Embedding(self.vocab_size, self.width, dtype=self.dtype)
        self.position_embedding = Embedding(
            self.context, self.width, axes=("positions", "embed"), dtype=self.dtype
        )
        self.dropout = Dropout(self.dropout_rate)
        self.blocks = Stack(block, self.num_layers, self.scan_layers, self.remat)
        self.final_norm = norm()
        if not self.tie_embeddings:
            self.output = Linear(
                (self.vocab_size,), ("embed", "vocab"), self.output_bias, dtype=self.dtype
            )

    def embed(
        self, tokens: Int[Array, "B T"], positions: Int[Array, "#B T"]
    ) -> Float[Array, "B T D"]:
        """Token and position vectors, added."""
        x = tap(self, "token_embedding", self.token_embedding(tokens))
        places = tap(self, "position_embedding", self.position_embedding(positions))
        return self.dropout(x + places)

    def check(self) -> None:
        """Refuses values that do not make a model.

        Raises:
            ConfigError: naming the field and what to do.
        """
        super().check()
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
