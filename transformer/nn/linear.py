"""A dense layer whose kernel keeps the meaning of its axes."""

from collections.abc import Callable
from typing import Annotated

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from transformer.limits import OneOf
from transformer.ops.dense import dense
from transformer.sharding import gathered

# The dtypes of a computation.
DTYPES = ("float32", "bfloat16", "float16")
DType = Annotated[str, OneOf(DTYPES)]


def named(init: Callable, *axes: str | None) -> Callable:
    """An initialiser whose parameter carries the logical names of its axes."""
    return nn.with_logical_partitioning(init, axes)


class Linear(nn.Module):
    """Contracts the last axes of the input with a kernel.

    Attributes:
        features: the shape of the output axes.
        axes: logical names of the kernel's axes, input axes first; their number minus that of
            `features` is the number of input axes.
        use_bias: whether to add a bias.
        init_scale: standard deviation of the kernel's normal initialiser.
        dtype: of the computation; parameters are float32.
    """

    features: tuple[int, ...]
    axes: tuple[str | None, ...]
    use_bias: bool = True
    init_scale: float = 0.02
    dtype: str = "float32"

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        num_input_axes = len(self.axes) - len(self.features)
        kernel, bias = self.weights(x.shape[x.ndim - num_input_axes :])
        x = x.astype(jnp.dtype(self.dtype))
        return dense(x, kernel, bias, num_input_axes=num_input_axes)

    @nn.compact
    def weights(
        self, inputs: tuple[int, ...]
    ) -> tuple[Float[Array, "..."], Float[Array, "..."] | None]:
        """Kernel and bias in the dtype of the computation.

        Args:
            inputs: the shape of the input axes.
        """
        num_input_axes, shape = len(inputs), (*inputs, *self.features)
        init = nn.initializers.normal(self.init_scale)
        kernel = self.param("kernel", named(init, *self.axes), shape)
        bias = None
        if self.use_bias:
            names = self.axes[num_input_axes:]
            bias = self.param("bias", named(nn.initializers.zeros, *names), self.features)
            bias = bias.astype(self.dtype)
        return gathered(kernel.astype(self.dtype), *self.axes), bias
