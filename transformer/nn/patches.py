"""From pixels to tokens: a dense layer on patches, or a few convolutions."""

import math

import flax.linen as nn
from jaxtyping import Array, Float

from transformer.nn.linear import Linear, named
from transformer.nn.norms import LayerNorm
from transformer.ops.activations import ACTIVATIONS
from transformer.ops.patches import patchify


class PatchEmbedding(nn.Module):
    """One dense layer on all values of a patch (Dosovitskiy et al. 2021, equation 1).

    It is a convolution whose stride is the size of its kernel, as one matrix product.

    Attributes:
        patch_size: in pixels.
        width: D.
        init_scale: standard deviation of the dense kernel at initialisation.
        dtype: of the computation.
    """

    patch_size: int
    width: int
    init_scale: float = 0.02
    dtype: str = "float32"

    @nn.compact
    def __call__(self, images: Float[Array, "B Y X C"]) -> Float[Array, "B T D"]:
        patches = patchify(images, self.patch_size)
        return _dense(self)(patches)


class ConvolutionalStem(nn.Module):
    """Convolutions of 3x3 that halve the image until a patch is one pixel (Xiao et al. 2021).

    Each has twice the channels of the one before; a final dense layer has width D. The paper
    normalises over the batch; here it is over the channels, which needs no running averages.

    Attributes:
        patch_size: in pixels, a power of 2.
        width: D.
        init_scale: standard deviation of the dense kernel at initialisation.
        dtype: of the computation.
    """

    patch_size: int
    width: int
    init_scale: float = 0.02
    dtype: str = "float32"

    @nn.compact
    def __call__(self, images: Float[Array, "B Y X C"]) -> Float[Array, "B T D"]:
        num_halvings = int(math.log2(self.patch_size))
        x = images
        for index in range(num_halvings):
            channels = max(8, self.width >> (num_halvings - index))
            kernel_init = named(nn.initializers.he_normal(), None, None, None, None)
            convolution = nn.Conv(
                channels,
                (3, 3),
                (2, 2),
                use_bias=False,
                kernel_init=kernel_init,
                dtype=self.dtype,
                name=f"convolution_{index}",
            )
            x = ACTIVATIONS["relu"](LayerNorm(name=f"norm_{index}")(convolution(x)))
        tokens = x.reshape(x.shape[0], -1, x.shape[-1])
        return _dense(self)(tokens)


def _dense(stem: PatchEmbedding | ConvolutionalStem) -> Linear:
    """The dense layer that makes tokens as wide as the model."""
    return Linear(
        (stem.width,),
        (None, "embed"),
        init_scale=stem.init_scale,
        dtype=stem.dtype,
        name="dense",
    )


STEMS = {"patches": PatchEmbedding, "convolutions": ConvolutionalStem}
