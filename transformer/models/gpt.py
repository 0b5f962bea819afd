"""GPT: the decoder-only transformer (Radford et al. 2018, 2019).

Token and position embeddings are added; then come pre-norm blocks of causal attention and
feed-forward, a final normalisation and the output layer.
"""

import functools
import math

from jaxtyping import Array, Float, Int

from transformer.errors import ConfigError
from transformer.limits import Positive, Width
from transformer.nn.block import Block
from transformer.nn.decoder import DecoderOnly
from transformer.nn.embeddings import Embedding
from transformer.nn.feed_forward import FeedForward
from transformer.nn.norms import LayerNorm
from transformer.nn.sizes import require_multiple
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
        # GPT-2 scales the layers that write to the residual stream by their number (Radford et
        # al. 2019, section 2.3), so that its variance does not grow with depth.
        residual_init = 0.02 / math.sqrt(2 * self.num_layers)
        norm = functools.partial(LayerNorm, epsilon=self.norm_epsilon)
        block = functools.partial(
            Block,
            attention=self.attention_layer(use_bias=self.qkv_bias, output_init_scale=residual_init),
            feed_forward=functools.partial(
                FeedForward,
                width=self.feed_forward_width or 4 * self.width,
                activation=self.activation,
                output_init_scale=residual_init,
                dtype=self.compute.dtype,
            ),
            norm=norm,
            dropout_rate=self.dropout_rate,
        )
        self.surround(block, norm, output_bias=self.output_bias)
        self.position_embedding = Embedding(
            self.context, self.width, axes=("positions", "embed"), dtype=self.compute.dtype
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
        require_multiple("heads must divide the width", width=self.width, num_heads=self.num_heads)
        if self.tie_embeddings and self.output_bias:
            raise ConfigError(
                "config.model.output_bias needs a separate output layer: "
                "set config.model.tie_embeddings=False or drop the bias."
            )
