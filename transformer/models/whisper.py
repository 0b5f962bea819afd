"""Whisper: writes down, or translates, what it hears (Radford et al. 2023).

Two convolutions turn frames of 10 ms into vectors of 20 ms, the encoder reads these in both
directions, the decoder writes. Positions are sines and cosines for the encoder and learned for the
decoder; branches normalise their inputs (section 2.2). What the decoder is to do stands in front of
the text as tokens (section 2.3).
"""

import functools
from typing import Annotated

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from transformer.errors import ConfigError
from transformer.limits import Heads, Layers, Length, Whole, Width
from transformer.nn.block import Block
from transformer.nn.embeddings import Embedding
from transformer.nn.encoder_decoder import AnyEncoderDecoder
from transformer.nn.feed_forward import FeedForward
from transformer.nn.frames import FrameConvolutions
from transformer.nn.linear import named
from transformer.nn.norms import LayerNorm
from transformer.nn.sizes import require_multiple
from transformer.nn.taps import tap
from transformer.ops.activations import Activation
from transformer.ops.positions import sinusoidal
from transformer.traced import RateOrOff


class Whisper(AnyEncoderDecoder):
    """Recordings to text; its fields and those of `AnyEncoderDecoder` are `config.model`.

    The defaults are `tiny`. The others have 6, 12, 24, 32 layers in each stack, a width of 512,
    768, 1024, 1280 and heads of 64; `large-v3` reads 128 features a frame.

    Attributes:
        num_features: M, bands of the mel scale in a frame; None takes those of the data.
        source_context: the most vectors that the encoder reads, two frames each: 30 seconds.
        context: the most tokens that the decoder reads.
    """

    num_encoder_layers: Layers = 4
    num_decoder_layers: Layers = 4
    num_heads: Heads = 6
    width: Width = 384
    feed_forward_width: Width = 1536
    activation: Activation = "gelu"
    dropout_rate: RateOrOff = 0.0
    num_features: Annotated[int, Whole(1, 1 << 14)] | None = 80
    source_context: Length = 1500
    context: Length = 448

    def setup(self) -> None:
        # A bias of the keys would add the same to all logits of a query, so there is none.
        attention = self.compute.attention_layer(num_heads=self.num_heads, use_key_bias=False)
        block = functools.partial(
            Block,
            attention=attention,
            feed_forward=functools.partial(
                FeedForward,
                width=self.feed_forward_width,
                activation=self.activation,
                dtype=self.compute.dtype,
            ),
            norm=LayerNorm,
            dropout_rate=self.dropout_rate,
        )
        self.surround(block, attention, init_scale=0.02)
        self.front = FrameConvolutions(self.width, dtype=self.compute.dtype)
        # Kept as published to the last bit, but never trained.
        table = named(_sines_then_cosines, None, "embed")
        self.encoder_positions = self.param(
            "encoder_positions", table, (self.source_context, self.width)
        )
        self.decoder_positions = Embedding(self.context, self.width, axes=(None, "embed"))
        self.encoder_norm, self.decoder_norm = LayerNorm(), LayerNorm()

    def read(
        self,
        source: Float[Array, "B S M"],
        source_segments: Int[Array, "B S"] | None,
        positions: Int[Array, "B S"] | None,
    ) -> Float[Array, "B R D"]:
        """The vectors of the frames with their positions.

        Raises:
            ConfigError: for a recording that is too long.
        """
        x = tap(self, "encoder_frame_embedding", self.front(source, source_segments))
        if x.shape[1] > self.source_context:
            raise ConfigError(
                f"a recording has {source.shape[1]} frames, and the model reads "
                f"{self.source_context * self.source_stride} (config.model.source_context): cut it."
            )
        places = jax.lax.stop_gradient(self.encoder_positions)[: x.shape[1]]
        places = tap(self, "encoder_position_embedding", places.astype(self.compute.dtype))
        return self.dropout(x + places)

    def embed(
        self, tokens: Int[Array, "B T"], positions: Int[Array, "#B T"], stack: str
    ) -> Float[Array, "B T D"]:
        """The vectors of the target's tokens with learned positions."""
        x = tap(self, f"{stack}_token_embedding", self.token_embedding(tokens))
        places = self.decoder_positions(jnp.broadcast_to(positions, tokens.shape))
        return self.dropout(x + tap(self, f"{stack}_position_embedding", places))

    def finish_encoder(self, x: Float[Array, "B R D"]) -> Float[Array, "B R D"]:
        """Normalises once more, because branches normalise only their inputs."""
        return self.encoder_norm(x)

    def finish_decoder(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """As after the encoder."""
        return self.decoder_norm(x)

    @property
    def source_stride(self) -> int:
        """How many frames share one vector of the memory."""
        return 2

    def check(self) -> None:
        """Refuses values that do not make a model.

        Raises:
            ConfigError: naming the field and what to do.
        """
        super().check()
        require_multiple("heads must divide the width", width=self.width, num_heads=self.num_heads)
        if self.width % 2 or self.width < 4:
            raise ConfigError(
                f"config.model.width ({self.width}) must be even and at least 4: sines and cosines "
                f"come in pairs."
            )


def _sines_then_cosines(
    key: object, shape: tuple[int, int], dtype: DTypeLike = jnp.float32
) -> Array:
    """Rows of sines and cosines whose longest wavelength is 10,000 x 2 pi, in the last column."""
    del key
    length, width = shape
    base = 10_000.0 ** (width / (width - 2))
    return sinusoidal(jnp.arange(length), width, base=base, interleaved=False).astype(dtype)
