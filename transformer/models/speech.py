"""A small recogniser of speech: an encoder-decoder with CTC beside attention.

Convolutions turn the frames of a recording into vectors, a quarter as many by default. The encoder
reads these in both directions, with rotary positions, so that only distances matter. The decoder
writes the transcript. A second output layer gives each vector of the encoder a token or none, for
CTC (Graves et al. 2006), which makes the two sides align even with little speech (Watanabe et al.
2017, section II).
"""

import functools
import math
from typing import Annotated

from jaxtyping import Array, Float, Int

from transformer.errors import ConfigError
from transformer.limits import OneOf, Whole
from transformer.nn.block import Block
from transformer.nn.encoder_decoder import AnyEncoderDecoder, Source
from transformer.nn.feed_forward import FeedForward
from transformer.nn.frames import FrameConvolutions
from transformer.nn.linear import Linear
from transformer.nn.norms import LayerNorm
from transformer.nn.sizes import decided, require_multiple
from transformer.nn.taps import tap
from transformer.ops.activations import Activation
from transformer.ops.positions import rotary

# Strides of the convolutions, by the stride of the whole.
STRIDES = {"1": (1, 1), "2": (1, 2), "4": (2, 2), "8": (2, 2, 2)}


class Speech(AnyEncoderDecoder):
    """Recordings to text; its fields and those of `AnyEncoderDecoder` are `config.model`.

    Attributes:
        num_features: M, the numbers of a frame; None takes those of the data.
        stride: how many frames share one vector.
        kernel_size: frames that each convolution sees.
    """

    activation: Activation = "gelu"
    num_features: Annotated[int, Whole(1, 1 << 14)] | None = None
    stride: Annotated[str, OneOf(STRIDES)] = "4"
    kernel_size: Annotated[int, Whole(1, 31)] = 3

    def setup(self) -> None:
        scale = math.sqrt(1 / self.width)
        attention = functools.partial(
            self.compute.attention_layer,
            num_heads=self.num_heads,
            init_scale=scale,
            output_init_scale=scale,
        )
        block = functools.partial(
            Block,
            attention=attention(position=rotary),
            feed_forward=functools.partial(
                FeedForward,
                width=self.feed_forward_width,
                activation=self.activation,
                init_scale=scale,
                output_init_scale=math.sqrt(1 / self.feed_forward_width),
                dtype=self.compute.dtype,
            ),
            norm=LayerNorm,
            dropout_rate=self.dropout_rate,
        )
        self.surround(block, attention(), init_scale=scale)
        self.front = FrameConvolutions(
            self.width, STRIDES[self.stride], self.kernel_size, dtype=self.compute.dtype
        )
        self.encoder_norm, self.decoder_norm = LayerNorm(), LayerNorm()
        self.alignment = Linear(
            (decided("vocab_size", self.vocab_size) + 1,),
            # One more than the vocabulary, which devices could not share evenly.
            ("embed", None),
            init_scale=scale,
            dtype=self.compute.dtype,
        )

    def __call__(
        self, source: Source, target: Int[Array, "B T"], **layout: Int[Array, "B _"] | None
    ) -> Float[Array, "B T V"]:
        """Scores every next token of the target; arguments as in `features`."""
        if self.is_initializing():
            # The output layer for CTC exists from the beginning.
            self.aligned(self.encode(source, layout.get("source_segments")))
        return super().__call__(source, target, **layout)

    @property
    def source_stride(self) -> int:
        """How many frames share one vector of the memory."""
        return math.prod(STRIDES[self.stride])

    def read(
        self,
        source: Float[Array, "B S M"],
        source_segments: Int[Array, "B S"] | None,
        positions: Int[Array, "B S"] | None,
    ) -> Float[Array, "B R D"]:
        """The vectors of the frames."""
        x = tap(self, "encoder_frame_embedding", self.front(source, source_segments))
        return self.dropout(x)

    def embed(
        self, tokens: Int[Array, "B T"], positions: Int[Array, "#B T"], stack: str
    ) -> Float[Array, "B T D"]:
        """The vectors of the target's tokens, with variance 1."""
        x = self.token_embedding(tokens) * math.sqrt(self.width)
        return self.dropout(tap(self, f"{stack}_token_embedding", x))

    def finish_encoder(self, x: Float[Array, "B R D"]) -> Float[Array, "B R D"]:
        """One more normalisation, because branches normalise their inputs only."""
        return self.encoder_norm(x)

    def finish_decoder(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """As after the encoder."""
        return self.decoder_norm(x)

    def aligned(self, memory: Float[Array, "B R D"]) -> Float[Array, "B R C"]:
        """Logits of each vector's token, in float32: C is V + 1, the last is that of none."""
        return self.alignment(memory).astype("float32")

    def check(self) -> None:
        """Refuses values that do not make a model.

        Raises:
            ConfigError: naming the field and what to do.
        """
        super().check()
        require_multiple("heads must divide the width", width=self.width, num_heads=self.num_heads)
        if self.head_width() % 2:
            raise ConfigError(
                f"config.model.width / config.model.num_heads is {self.head_width()}: it must be "
                f"even, because rotary positions rotate pairs."
            )
        if self.kernel_size % 2 == 0:
            raise ConfigError(
                f"config.model.kernel_size is {self.kernel_size}: give an odd number, so that a "
                f"convolution has a middle."
            )
