"""The Transformer: the encoder-decoder of "Attention Is All You Need" (Vaswani et al. 2017).

The encoder reads the source in both directions. The decoder reads the target from left to right
and, in each layer, attends to the encoder's output. One table embeds source and target and is also
the output layer (section 3.4); positions are sines and cosines (section 3.5).
"""

import functools
import math
from typing import Annotated

import flax.linen as nn
from jaxtyping import Array, Float, Int

from transformer.errors import ConfigError
from transformer.limits import OneOf
from transformer.nn.block import ORDERS, Block
from transformer.nn.encoder_decoder import EncoderDecoder
from transformer.nn.feed_forward import FeedForward
from transformer.nn.linear import named
from transformer.nn.norms import LayerNorm
from transformer.nn.sizes import decided, require_multiple
from transformer.nn.taps import tap
from transformer.ops.positions import sinusoidal


class Vaswani(EncoderDecoder):
    """An encoder-decoder for sequence to sequence; its fields are `config.model`.

    The defaults are `base` of the paper's table 3. `EncoderDecoder` describes the other fields; the
    width is even, and dropout is as in section 5.4.

    Attributes:
        norm_order: `post` as in the paper, or `pre`, which trains deep stacks without warmup
            (Xiong et al. 2020) and needs one more normalisation after each stack.
        interleaved_positions: whether sines and cosines alternate, as in the paper; otherwise all
            sines come first, as in Marian (Junczys-Dowmunt et al. 2018).
        scale_embeddings: whether embeddings are scaled by sqrt(D), as in the paper.
        token_bias: adds a learned number to the scores of each token.
        begin_id: as in `EncoderDecoder`; no output contains this token.
    """

    norm_order: Annotated[str, OneOf(ORDERS)] = "post"
    interleaved_positions: bool = True
    scale_embeddings: bool = True
    token_bias: bool = False

    def setup(self) -> None:
        # Glorot and Bengio 2010, equation 16: sqrt(2 / (inputs + outputs)).
        square = math.sqrt(1 / self.width)
        # With post-norm, queries, keys and values by the rule for all three as one matrix, as in
        # fairseq (Ott et al. 2019): with larger kernels `:multi30k` learned more slowly (LOG.md).
        joint = math.sqrt(1 / (2 * self.width))
        rectangle = math.sqrt(2 / (self.width + self.feed_forward_width))
        attention = self.compute.attention_layer(
            num_heads=self.num_heads,
            init_scale=joint if self.norm_order == "post" else square,
            output_init_scale=square,
        )
        block = functools.partial(
            Block,
            attention=attention,
            feed_forward=functools.partial(
                FeedForward,
                width=self.feed_forward_width,
                activation=self.activation,
                init_scale=rectangle,
                output_init_scale=rectangle,
                dtype=self.compute.dtype,
            ),
            norm=LayerNorm,
            order=self.norm_order,
            dropout_rate=self.dropout_rate,
        )
        # The variance of embeddings is 1 / D, so that it is 1 after the scaling by sqrt(D).
        self.surround(block, attention, init_scale=square)
        if self.norm_order == "pre":
            self.encoder_norm, self.decoder_norm = LayerNorm(), LayerNorm()
        if self.token_bias:
            zeros = named(nn.initializers.zeros, "vocab")
            shape = (decided("vocab_size", self.vocab_size),)
            self.output_bias = self.param("output_bias", zeros, shape)

    def embed(
        self, tokens: Int[Array, "B T"], positions: Int[Array, "#B T"], stack: str
    ) -> Float[Array, "B T D"]:
        """Scaled embeddings plus positions (sections 3.4 and 3.5)."""
        x = self.token_embedding(tokens)
        if self.scale_embeddings:
            x *= math.sqrt(self.width)
        x = tap(self, f"{stack}_token_embedding", x)
        places = sinusoidal(positions, self.width, interleaved=self.interleaved_positions)
        places = tap(self, f"{stack}_position_embedding", places.astype(self.compute.dtype))
        return self.dropout(x + places)

    def finish_encoder(self, x: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
        """One more normalisation if branches normalise their inputs (pre-norm)."""
        return self.encoder_norm(x) if self.norm_order == "pre" else x

    def finish_decoder(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """As after the encoder."""
        return self.decoder_norm(x) if self.norm_order == "pre" else x

    def logits(self, features: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        """The table of tokens as output layer, in float32."""
        scores = super().logits(features)
        return scores + self.output_bias if self.token_bias else scores

    def output_layer(self) -> tuple[Float[Array, "D V"], Float[Array, "V"] | None]:
        """Kernel and bias of the output layer, for losses that use it in chunks."""
        kernel, _ = super().output_layer()
        return kernel, self.output_bias if self.token_bias else None

    def unwritten_tokens(self) -> tuple[int, ...]:
        """The begin token, which Marian also uses for padding."""
        return () if self.begin_id is None else (self.begin_id,)

    def check(self) -> None:
        """Refuses values that do not make a model.

        Raises:
            ConfigError: naming the field and what to do.
        """
        super().check()
        require_multiple("heads must divide the width", width=self.width, num_heads=self.num_heads)
        if self.width % 2:
            raise ConfigError(
                f"config.model.width ({self.width}) must be even: sines and cosines come in pairs."
            )
