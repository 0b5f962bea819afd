"""A small codec of sound: spectrogram frames become codes, a few bits each, and frames again.

Convolutions see a few neighbouring frames and give a vector for each group of them; finite scalar
quantisation (Mentzer et al. 2023) makes it a code. A transformer that sees a few codes before and
after each gives the frames again. A code depends only on the sound around it, so codes are tokens
that a decoder can write.
"""

import functools
import math
from typing import Annotated

import flax.linen as nn
from jaxtyping import Array, Float, Int

from transformer.errors import ConfigError
from transformer.limits import Heads, Layers, OneOf, Several, Whole, Width
from transformer.nn.block import Block
from transformer.nn.compute import Compute
from transformer.nn.feed_forward import FeedForward
from transformer.nn.frames import FrameConvolutions
from transformer.nn.linear import Linear
from transformer.nn.norms import LayerNorm
from transformer.nn.sizes import decided, require_multiple
from transformer.ops.activations import Activation
from transformer.ops.masks import Mask
from transformer.ops.positions import rotary
from transformer.ops.quantization import codes_of, num_codes, quantized, vectors_of
from transformer.traced import RateOrOff

# Strides of the convolutions, by the frames that share a code.
STRIDES = {"1": (1, 1), "2": (1, 2), "4": (2, 2)}
# A decoder scores every code, so there cannot be many.
MOST_CODES = 1 << 16


class SoundCodec(nn.Module):
    """Frames to codes and back; its fields are `config.model`.

    Attributes:
        num_features: M, the numbers of a frame; None takes those of the data.
        levels: how many values each number of a quantised vector has; their product is the number
            of codes.
        stride: how many frames share one code.
        kernel_size: frames that each convolution sees.
        num_layers: L, of the transformer that makes frames of codes.
        num_heads: N.
        width: D.
        feed_forward_width: F.
        window: the transformer sees codes that are fewer than this many away.
        activation: activation of the feed-forward layers.
        dropout_rate: on branches.
        compute: how it computes; see `nn.compute.Compute`.
    """

    num_features: Annotated[int, Whole(1, 1 << 14)] | None = None
    levels: Annotated[tuple[Annotated[int, Whole(2, 256)], ...], Several(16)] = (8, 5, 5, 5)
    stride: Annotated[str, OneOf(STRIDES)] = "2"
    kernel_size: Annotated[int, Whole(1, 31)] = 5
    num_layers: Layers = 2
    num_heads: Heads = 4
    width: Width = 128
    feed_forward_width: Width = 512
    window: Annotated[int, Whole(1, 1 << 16)] = 8
    activation: Activation = "gelu"
    dropout_rate: RateOrOff = 0.0
    compute: Compute = Compute()

    def setup(self) -> None:
        dtype, scale = self.compute.dtype, math.sqrt(1 / self.width)
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
                dtype=dtype,
            ),
            norm=LayerNorm,
            dropout_rate=self.dropout_rate,
        )
        dense = functools.partial(Linear, init_scale=scale, dtype=dtype)
        outputs = decided("num_features", self.num_features) * self.frames_per_code
        self.front = FrameConvolutions(
            self.width, STRIDES[self.stride], self.kernel_size, dtype=dtype
        )
        self.squeeze = dense((len(self.levels),), ("embed", None))
        self.widen = Linear((self.width,), (None, "embed"), init_scale=1.0, dtype=dtype)
        self.blocks = self.compute.stack(block, self.num_layers)
        self.final_norm = LayerNorm()
        self.output = dense((outputs,), ("embed", None))

    @property
    def frames_per_code(self) -> int:
        """How many frames share one code."""
        return math.prod(STRIDES[self.stride])

    @property
    def num_codes(self) -> int:
        """How many codes there are."""
        return num_codes(self.levels)

    def __call__(self, frames: Float[Array, "B T M"]) -> Float[Array, "B T M"]:
        """The frames as they are after quantisation, in float32; gradients pass through it."""
        return self._written(self.quantized(frames))[:, : frames.shape[1]]

    def quantized(self, frames: Float[Array, "B T M"]) -> Float[Array, "B R C"]:
        """The quantised vectors; R is T divided by the stride and rounded up."""
        return quantized(self.squeeze(self.front(frames)).astype("float32"), self.levels)

    def encode(self, frames: Float[Array, "B T M"]) -> Int[Array, "B R"]:
        """The codes of frames."""
        return codes_of(self.quantized(frames), self.levels)

    def decode(self, codes: Int[Array, "B R"]) -> Float[Array, "B T M"]:
        """The frames that codes stand for; T is R times the stride."""
        return self._written(vectors_of(codes, self.levels))

    def _written(self, vectors: Float[Array, "B R C"]) -> Float[Array, "B T M"]:
        x, _ = self.blocks(self.widen(vectors), mask=Mask(window=self.window))
        frames = self.output(self.final_norm(x)).astype("float32")
        return frames.reshape(x.shape[0], -1, decided("num_features", self.num_features))

    def chosen_attention(self, *inputs: Array) -> str:
        """The attention implementation that training uses for such (or usual) lengths.

        Raises:
            ConfigError: if the implementation that the config asks for does not support it.
        """
        length = -(-inputs[0].shape[1] // self.frames_per_code) if inputs else None
        head_width = self.width // self.num_heads
        mask = Mask(window=self.window)
        return self.compute.chosen_attention(self.num_heads, head_width, length, mask=mask)

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
        if not self.levels or self.num_codes > MOST_CODES:
            raise ConfigError(
                f"config.model.levels is {self.levels}: it makes "
                f"{self.num_codes if self.levels else 0:,} codes; give from 1 number to as many as "
                f"make {MOST_CODES:,} codes."
            )
        if self.kernel_size % 2 == 0:
            raise ConfigError(
                f"config.model.kernel_size is {self.kernel_size}: give an odd number, so that a "
                f"convolution has a middle."
            )
