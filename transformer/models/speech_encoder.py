"""An encoder that hears: each vector of a recording gets a token or none (Graves et al. 2006).

It is the encoder of `speech.py` with the output layer for CTC, and no decoder. Outputs depend on
each other only through what the encoder hears.
"""

import functools
import math
from typing import Annotated

import flax.linen as nn
from jaxtyping import Array, Float, Int

from transformer.errors import ConfigError
from transformer.limits import Heads, Layers, OneOf, VocabSize, Whole, Width
from transformer.models.speech import STRIDES
from transformer.nn.block import Block
from transformer.nn.compute import Compute
from transformer.nn.dropout import Dropout
from transformer.nn.feed_forward import FeedForward
from transformer.nn.frames import FrameConvolutions
from transformer.nn.linear import Linear
from transformer.nn.norms import LayerNorm
from transformer.nn.sizes import decided, require_multiple
from transformer.nn.taps import tap
from transformer.ops.activations import Activation
from transformer.ops.masks import Mask, segments
from transformer.ops.positions import rotary
from transformer.traced import RateOrOff


class SpeechEncoder(nn.Module):
    """Recordings to tokens by CTC alone; its fields are `config.model`.

    Attributes:
        vocab_size: V; None takes the size of the tokenizer's vocabulary.
        num_layers: L.
        num_heads: N.
        width: D.
        feed_forward_width: F.
        activation: activation of the feed-forward layers.
        dropout_rate: on the input and on branches.
        num_features: M, the numbers of a frame; None takes those of the data.
        stride: how many frames share one vector.
        kernel_size: frames that each convolution sees.
        compute: how it computes; see `nn.compute.Compute`.
    """

    vocab_size: VocabSize | None = None
    num_layers: Layers = 6
    num_heads: Heads = 4
    width: Width = 144
    feed_forward_width: Width = 576
    activation: Activation = "gelu"
    dropout_rate: RateOrOff = 0.1
    num_features: Annotated[int, Whole(1, 1 << 14)] | None = None
    stride: Annotated[str, OneOf(STRIDES)] = "4"
    kernel_size: Annotated[int, Whole(1, 31)] = 3
    compute: Compute = Compute()

    def setup(self) -> None:
        scale = math.sqrt(1 / self.width)
        block = functools.partial(
            Block,
            attention=self.compute.attention_layer(
                num_heads=self.num_heads,
                position=rotary,
                init_scale=scale,
                output_init_scale=scale,
            ),
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
        self.front = FrameConvolutions(
            self.width, STRIDES[self.stride], self.kernel_size, dtype=self.compute.dtype
        )
        self.dropout = Dropout(self.dropout_rate)
        self.encoder = self.compute.stack(block, self.num_layers)
        self.encoder_norm = LayerNorm()
        self.alignment = Linear(
            (decided("vocab_size", self.vocab_size) + 1,),
            # One more than the vocabulary, which devices could not share evenly.
            ("embed", None),
            init_scale=scale,
            dtype=self.compute.dtype,
        )

    def __call__(
        self, frames: Float[Array, "B T M"], frame_segments: Int[Array, "B T"] | None = None
    ) -> Float[Array, "B R C"]:
        """The logits of `aligned`; arguments as in `encode`."""
        return self.aligned(self.encode(frames, frame_segments))

    @property
    def source_stride(self) -> int:
        """How many frames share one vector of the memory."""
        return math.prod(STRIDES[self.stride])

    def memory_lengths(self, num_frames: Int[Array, "B"]) -> Int[Array, "B"]:
        """How many vectors of the memory belong to recordings of these lengths."""
        return -(-num_frames // self.source_stride)

    def encode(
        self, frames: Float[Array, "B T M"], frame_segments: Int[Array, "B T"] | None = None
    ) -> Float[Array, "B R D"]:
        """The memory of recordings.

        Args:
            frames: the features.
            frame_segments: 1 at frames, 0 at padding; None means no padding. R is T divided by the
                stride and rounded up.
        """
        x = self.dropout(tap(self, "encoder_frame_embedding", self.front(frames, frame_segments)))
        mask = None
        if frame_segments is not None:
            mask = segments(frame_segments[:, :: self.source_stride])
        x, _ = self.encoder(x, mask=mask)
        return tap(self, "encoder_final", self.encoder_norm(x))

    def aligned(self, memory: Float[Array, "B R D"]) -> Float[Array, "B R C"]:
        """Logits of each vector's token, in float32: C is V + 1, the last is that of none."""
        return self.alignment(memory).astype("float32")

    def chosen_attention(self, *inputs: Array) -> str:
        """The attention implementation that training uses for such (or usual) lengths.

        Raises:
            ConfigError: if the implementation that the config asks for does not support it.
        """
        length = -(-inputs[0].shape[1] // self.source_stride) if inputs else None
        mask = Mask(query_segments=True)
        return self.compute.chosen_attention(
            self.num_heads, self.width // self.num_heads, length, mask=mask
        )

    def check(self) -> None:
        """Refuses values that do not make a model.

        Raises:
            ConfigError: naming the field and what to do.
        """
        self.compute.require_compilable(num_layers=self.num_layers)
        self.chosen_attention()
        require_multiple("heads must divide the width", width=self.width, num_heads=self.num_heads)
        if self.width // self.num_heads % 2:
            raise ConfigError(
                f"config.model.width / config.model.num_heads is {self.width // self.num_heads}: "
                f"it must be even, because rotary positions rotate pairs."
            )
        if self.kernel_size % 2 == 0:
            raise ConfigError(
                f"config.model.kernel_size is {self.kernel_size}: give an odd number, so that a "
                f"convolution has a middle."
            )
