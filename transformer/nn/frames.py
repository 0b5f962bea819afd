"""From the frames of a recording to the vectors that a transformer reads."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from transformer.nn.linear import named
from transformer.ops.activations import ACTIVATIONS


class FrameConvolutions(nn.Module):
    """Convolutions over time, each followed by a GELU (Radford et al. 2023, section 2.2).

    Frames behind the end of a recording count as zeros in every convolution, so that its vectors
    do not depend on the padding.

    Attributes:
        width: D.
        strides: of the convolutions, one after another; their product is the stride of the whole.
        kernel_size: frames that a convolution sees.
        init_scale: standard deviation of the kernels at initialisation; None is 1 / sqrt(inputs).
        dtype: of the computation.
    """

    width: int
    strides: tuple[int, ...] = (1, 2)
    kernel_size: int = 3
    init_scale: float | None = None
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, frames: Float[Array, "B T M"], segments: Int[Array, "B T"] | None = None
    ) -> Float[Array, "B R D"]:
        """R is T divided by the stride and rounded up; `segments` is 0 at padding."""
        x, half = frames.astype(self.dtype), self.kernel_size // 2
        for index, stride in enumerate(self.strides):
            if segments is not None:
                x = jnp.where(segments[..., None] > 0, x, 0.0)
                segments = segments[:, ::stride]
            scale = self.init_scale or (x.shape[-1] * self.kernel_size) ** -0.5
            kernel_init = named(nn.initializers.normal(scale), None, None, "embed")
            convolution = nn.Conv(
                self.width,
                (self.kernel_size,),
                (stride,),
                padding=((half, half),),
                kernel_init=kernel_init,
                bias_init=named(nn.initializers.zeros, "embed"),
                dtype=self.dtype,
                name=f"convolution_{index}",
            )
            x = ACTIVATIONS["gelu"](convolution(x))
        return x
