"""ViT: an image as a sequence of patches (Dosovitskiy et al. 2021).

Patches become tokens, positions are added, and pre-norm encoder blocks follow. As in `models.bert`,
each job of the heads is one method: classifying an image, or reconstructing the patches that were
hidden from the encoder (He et al. 2022). Parameters exist for the methods that a job calls.
"""

import functools
import math
from typing import Annotated, ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from transformer.errors import ConfigError
from transformer.limits import (
    Heads,
    Layers,
    OneOf,
    Outputs,
    PartOrNone,
    Pixels,
    Positive,
    Weight,
    Whole,
    Width,
)
from transformer.nn.block import Block
from transformer.nn.compute import Compute
from transformer.nn.dropout import Dropout
from transformer.nn.embeddings import Embedding
from transformer.nn.feed_forward import FeedForward
from transformer.nn.linear import Linear, named
from transformer.nn.norms import LayerNorm
from transformer.nn.patch_decoder import PatchDecoder
from transformer.nn.patches import STEMS
from transformer.nn.pooling import AttentionPooling
from transformer.nn.sizes import decided, require_multiple
from transformer.nn.stack import MAX_UNROLLED, Maker
from transformer.nn.taps import tap
from transformer.ops.activations import Activation
from transformer.ops.positions import sinusoidal, sinusoidal_2d
from transformer.ops.resampling import resize_grid
from transformer.traced import RateOrOff, is_zero

POOLINGS = ("class", "mean", "attention")
POSITIONS = ("learned", "sinusoidal", "sinusoidal_2d")
DISTILLATIONS = ("none", "one", "two")


class ViT(nn.Module):
    """An encoder of images and its heads; its fields are `config.model`.

    The defaults are B/16. With 1,000 classes and images of 224 pixels the published sizes are

        size    num_layers  width  num_heads  feed_forward_width   parameters
        Ti/16           12    192          3                 768    5,717,416
        S/16            12    384          6               1,536   22,050,664
        B/16            12    768         12               3,072   86,567,656
        L/16            24  1,024         16               4,096  304,326,632
        H/14            32  1,280         16               5,120  632,045,800

    An image of 48x48 pixels in three colours with patches of 16x16 becomes 9 tokens of 768 values
    each; a dense layer makes them as wide as the model.

    Attributes:
        num_outputs: the number of classes; None takes the number that the data have.
        channels: C of the images; None takes the number that the data have.
        image_size: height and width of the images in pixels.
        patch_size: height and width of a patch in pixels.
        num_layers: L.
        num_heads: N.
        width: D.
        feed_forward_width: F; None means 4 D.
        pooling: the vector that stands for the image: `class`, the state of a class token; `mean`,
            the mean over all tokens; `attention`, the output of a learned query that attends to
            them (Zhai et al. 2022, section 3).
        positions: `learned`, or fixed: `sinusoidal` counts patches row by row, `sinusoidal_2d`
            encodes row and column.
        distillation: `one` adds DeiT's distillation token, which learns from a teacher (Touvron et
            al. 2021, section 4); `two` also adds a head for it, and scores are the mean of both
            heads.
        num_registers: extra tokens without a patch, registers (Darcet et al. 2024).
        stem: `patches`, or `convolutions` (Xiao et al. 2021).
        activation: activation of the feed-forward layer.
        norm_epsilon: added to variances.
        init_scale: standard deviation of the kernels of patches and blocks at initialisation. The
            usual 0.02 is for widths of several hundred; narrow models need more.
        dropout_rate: on embeddings, attention weights and branches.
        stochastic_depth_rate: how often the last layer's branches are left out (Huang et al. 2016).
            The rate grows linearly from 0 in the first layer, as in Touvron et al. 2021.
        layer_scale: see `nn.block.Block`.
        decoder_layers: the number of layers of the decoder that reconstructs hidden patches.
        decoder_width: the width of that decoder.
        decoder_heads: the number of heads of that decoder.
        compute: how it computes; see `nn.compute.Compute`.
    """

    # Fields that may change when a run is initialized from another: heads, and those that `refit`
    # handles.
    ADAPTABLE: ClassVar[tuple[str, ...]] = (
        "image_size",
        "pooling",
        "stochastic_depth_rate",
        "init_scale",
        "decoder_layers",
        "decoder_width",
        "decoder_heads",
    )

    # Modules that only some jobs use; then those of them whose outputs are labels.
    HEADS: ClassVar[tuple[str, ...]] = ("output", "distillation_output", "pooler", "decoder")
    LABEL_HEADS: ClassVar[tuple[str, ...]] = ("output", "distillation_output")

    num_outputs: Outputs | None = None
    channels: Annotated[int, Whole(1, 1 << 10)] | None = None
    image_size: Pixels = 224
    patch_size: Pixels = 16
    num_layers: Layers = 12
    num_heads: Heads = 12
    width: Width = 768
    feed_forward_width: Width | None = None
    pooling: Annotated[str, OneOf(POOLINGS)] = "class"
    positions: Annotated[str, OneOf(POSITIONS)] = "learned"
    distillation: Annotated[str, OneOf(DISTILLATIONS)] = "none"
    num_registers: Annotated[int, Whole(0, 1 << 16)] = 0
    stem: Annotated[str, OneOf(STEMS)] = "patches"
    activation: Activation = "gelu"
    norm_epsilon: Positive = 1e-6
    init_scale: Weight = 0.02
    dropout_rate: RateOrOff = 0.0
    stochastic_depth_rate: PartOrNone = 0.0
    layer_scale: Weight | None = None
    decoder_layers: Annotated[int, Whole(1, MAX_UNROLLED)] = 8
    decoder_width: Width = 512
    decoder_heads: Heads = 16
    compute: Compute = Compute()

    @property
    def grid(self) -> int:
        """Patches in a row, and in a column, of an image."""
        return self.image_size // self.patch_size

    def setup(self) -> None:
        channels, dtype = decided("channels", self.channels), self.compute.dtype
        stem = STEMS[self.stem]
        self.patch_embedding = stem(self.patch_size, self.width, self.init_scale, dtype)
        token = named(nn.initializers.normal(0.02), "tokens", "embed")
        if self.pooling == "class":
            self.class_token = self.param("class_token", token, (1, self.width))
        if self.distillation != "none":
            self.distillation_token = self.param("distillation_token", token, (1, self.width))
        if self.num_registers:
            self.registers = self.param("registers", token, (self.num_registers, self.width))
        if self.positions == "learned":
            self.position_embedding = Embedding(
                self.grid**2 + self._num_placed,
                self.width,
                axes=("positions", "embed"),
                dtype=dtype,
            )
        norm = functools.partial(LayerNorm, epsilon=self.norm_epsilon)
        parts = self._parts(self.num_heads, self.feed_forward_width or 4 * self.width, norm)
        block = functools.partial(
            Block, **parts, dropout_rate=self.dropout_rate, layer_scale=self.layer_scale
        )
        self.dropout = Dropout(self.dropout_rate)
        self.blocks = self.compute.stack(block, self.num_layers)
        self.final_norm = norm()
        self.pooler = AttentionPooling(**parts)
        dense = functools.partial(Linear, axes=("embed", None), dtype=dtype)
        self.output = dense((self.num_outputs or 0,))
        self.distillation_output = dense((self.num_outputs or 0,))
        self.decoder = PatchDecoder(
            functools.partial(
                Block, **self._parts(self.decoder_heads, 4 * self.decoder_width, norm)
            ),
            self.decoder_layers,
            self.decoder_width,
            self.patch_size**2 * channels,
            self.norm_epsilon,
            dtype,
        )

    def _parts(self, num_heads: int, feed_forward_width: int, norm: Maker) -> dict[str, Maker]:
        """The makers of a block's parts."""
        attention = self.compute.attention_layer(
            num_heads=num_heads,
            dropout_rate=self.dropout_rate,
            init_scale=self.init_scale,
            output_init_scale=self.init_scale,
        )
        feed_forward = functools.partial(
            FeedForward,
            width=feed_forward_width,
            activation=self.activation,
            init_scale=self.init_scale,
            output_init_scale=self.init_scale,
            dtype=self.compute.dtype,
        )
        return {"attention": attention, "feed_forward": feed_forward, "norm": norm}

    def __call__(
        self, images: Float[Array, "B Y X C"], seen: Int[Array, "B S"] | None = None
    ) -> Float[Array, "B T D"]:
        """The hidden states of all tokens: class, distillation, registers, patches.

        Args:
            images: normalised pixels.
            seen: the indices of the patches that the encoder sees; None means all, in order.
        """
        x = self.patch_embedding(images.astype(self.compute.dtype))
        x = tap(self, "token_embedding", x)
        extra, patches = self._positions()
        x = x + tap(self, "position_embedding", patches)
        if seen is not None:
            x = jnp.take_along_axis(x, seen[..., None], axis=1)
        front = []
        if self.pooling == "class":
            front.append(self.class_token.astype(x.dtype) + extra[:1])
        if self.distillation != "none":
            front.append(self.distillation_token.astype(x.dtype) + extra[1:])
        if self.num_registers:
            front.append(self.registers.astype(x.dtype))
        front = [jnp.broadcast_to(tokens, (x.shape[0], *tokens.shape)) for tokens in front]
        x = self.dropout(jnp.concatenate([*front, x], axis=1))
        rates = {}
        if self.stochastic_depth_rate:
            rates["skip_rate"] = jnp.linspace(0.0, self.stochastic_depth_rate, self.num_layers)
        x, _ = self.blocks(x, per_layer=rates)
        return tap(self, "final", self.final_norm(x))

    @property
    def num_front(self) -> int:
        """Tokens in front of the patches."""
        return self._num_placed + self.num_registers

    @property
    def _num_placed(self) -> int:
        """How many of these extra tokens have a learned position."""
        return (self.pooling == "class") + (self.distillation != "none")

    def pooled(self, features: Float[Array, "B T D"]) -> Float[Array, "B D"]:
        """The vector that stands for the image."""
        if self.pooling == "class":
            return features[:, 0]
        if self.pooling == "attention":
            return self.pooler(features)
        return jnp.mean(features[:, self.num_front :], axis=1)

    def classify(self, images: Float[Array, "B Y X C"]) -> Float[Array, "B c"]:
        """Scores of the classes, in float32."""
        features = self(images)
        scores = self.output(self.pooled(features)).astype(jnp.float32)
        if self.distillation == "two":
            scores = scores + self.distillation_output(features[:, 1]).astype(jnp.float32)
            scores = 0.5 * scores
        return scores

    def embed(self, images: Float[Array, "B Y X C"]) -> Float[Array, "B D"]:
        """A vector for each image, in float32: the input of the class head."""
        return self.pooled(self(images)).astype(jnp.float32)

    def reconstruct(
        self, images: Float[Array, "B Y X C"], order: Int[Array, "B T"], num_seen: int
    ) -> Float[Array, "B T P"]:
        """Reconstructs all patches of images of which the encoder sees only some (He et al. 2022).

        Args:
            images: normalised pixels.
            order: a permutation of the patches of each image; the encoder sees the first
                `num_seen`.
            num_seen: the number of patches that the encoder sees.

        Returns:
            The predicted values of all patches, in float32, in the order of the image.

        Raises:
            ConfigError: if the stem mixes patches, so that hidden ones would be seen.
        """
        if self.stem != "patches":
            raise ConfigError(
                f"config.model.stem is {self.stem!r}: it mixes neighbouring patches, so "
                f"hidden patches could be seen. Reconstruction needs config.model.stem=patches."
            )
        features = self(images, order[:, :num_seen])
        return self.decoder(features, jnp.argsort(order, axis=1), self.num_front)

    def chosen_attention(self, images: Float[Array, "B Y X C"] | None = None, *rest: object) -> str:
        """The attention implementation that training uses for these images, or for `image_size`.

        Raises:
            ConfigError: if the implementation that the config asks for does not support it.
        """
        grid = self.grid if images is None else images.shape[1] // self.patch_size
        return self.compute.chosen_attention(
            self.num_heads,
            self.width // self.num_heads,
            self.num_front + grid**2,
            has_dropout=not is_zero(self.dropout_rate),
        )

    def _positions(self) -> tuple[Float[Array, "t D"], Float[Array, "T D"]]:
        """The positions of the class and distillation tokens, and those of the patches."""
        dtype = self.compute.dtype
        if self.positions == "learned":
            table = self.position_embedding.embedding.astype(dtype)
            return table[: self._num_placed], table[self._num_placed :]
        if self.positions == "sinusoidal":
            table = sinusoidal(jnp.arange(self.grid**2), self.width)
        else:
            table = sinusoidal_2d(self.grid, self.grid, self.width)
        return jnp.zeros((2, self.width), dtype), table.astype(dtype)

    def refit(
        self, path: str, saved: Float[Array, "..."] | Float[np.ndarray, "..."]
    ) -> Float[Array, "..."] | Float[np.ndarray, "..."]:
        """Adapts a parameter of a model for images of another size to this model.

        Learned positions are interpolated (Dosovitskiy et al. 2021, section 3.2), bicubically.

        Args:
            path: the path of the parameter.
            saved: its value in the other model.
        """
        if path != "position_embedding/embedding":
            return saved
        front = self._num_placed
        side = math.isqrt(max(0, saved.shape[0] - front))
        if side < 1 or side**2 != saved.shape[0] - front:
            return saved
        grid = jnp.asarray(saved[front:]).reshape(side, side, saved.shape[1])
        resized = resize_grid(grid, self.grid, self.grid).reshape(self.grid**2, saved.shape[1])
        return jnp.concatenate([jnp.asarray(saved[:front]), resized])

    def check(self) -> None:
        """Refuses values that do not make a model.

        Raises:
            ConfigError: naming the field and what to do.
        """
        require_multiple(
            "patches must fill the image", image_size=self.image_size, patch_size=self.patch_size
        )
        for sizes in (
            {"width": self.width, "num_heads": self.num_heads},
            {"decoder_width": self.decoder_width, "decoder_heads": self.decoder_heads},
        ):
            require_multiple("heads must divide the width", **sizes)
        self.compute.require_compilable(num_layers=self.num_layers)
        self.chosen_attention()
        if self.distillation != "none" and self.pooling != "class":
            raise ConfigError(
                f"config.model.distillation is {self.distillation!r}: it needs "
                f"config.model.pooling=class."
            )
        if self.decoder_width % 4:
            raise ConfigError(
                f"config.model.decoder_width ({self.decoder_width}) is not a multiple of 4, which "
                f"its positions need."
            )
        fixed = {"sinusoidal": 2, "sinusoidal_2d": 4}.get(self.positions, 1)
        if self.width % fixed:
            raise ConfigError(
                f"config.model.width ({self.width}) is not a multiple of {fixed}, as "
                f"config.model.positions={self.positions} needs."
            )
        if self.stem == "convolutions" and self.patch_size & (self.patch_size - 1):
            raise ConfigError(
                f"config.model.patch_size is {self.patch_size}: the convolutional stem halves the "
                f"image repeatedly and needs a power of 2."
            )
