"""A dense layer whose kernel keeps the meaning of its axes."""

from collections.abc import Callable
from typing import Annotated

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from transformer.limits import OneOf
from transformer.ops.dense import dense
from transformer.ops.int8 import Int8, int8_dense
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
        dtype: of the computation; parameters are float32, or a kernel in 8 bits.
    """

    features: tuple[int, ...]
    axes: tuple[str | None, ...]
    use_bias: bool = True
    init_scale: float = 0.02
    dtype: str = "float32"

    @property
    def num_input_axes(self) -> int:
        """How many axes the kernel contracts."""
        return len(self.axes) - len(self.features)

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        kernel, bias = self.weights(x.shape[x.ndim - self.num_input_axes :])
        x = x.astype(jnp.dtype(self.dtype))
        return product(x, kernel, bias, num_input_axes=self.num_input_axes)

    @nn.compact
    def weights(
        self, inputs: tuple[int, ...]
    ) -> tuple[Float[Array, "..."] | Int8, Float[Array, "..."] | None]:
        """Kernel and bias in the dtype of the computation; a kernel in 8 bits stays as it is.

        Args:
            inputs: the shape of the input axes.
        """
        num_input_axes, shape = self.num_input_axes, (*inputs, *self.features)
        init = nn.initializers.normal(self.init_scale)
        kernel = self.param("kernel", named(init, *self.axes), shape)
        bias = None
        if self.use_bias:
            names = self.axes[num_input_axes:]
            bias = self.param("bias", named(nn.initializers.zeros, *names), self.features)
            bias = bias.astype(self.dtype)
        if isinstance(kernel, Int8):
            return kernel, bias
        return gathered(kernel.astype(self.dtype), *self.axes), bias


def product(
    x: Float[Array, "..."],
    kernel: Float[Array, "..."] | Int8,
    bias: Float[Array, "..."] | None,
    *,
    num_input_axes: int = 1,
) -> Float[Array, "..."]:
    """`ops.dense.dense`, also with a kernel in 8 bits."""
    if isinstance(kernel, Int8):
        return int8_dense(x, kernel, bias, num_input_axes=num_input_axes)
    return dense(x, kernel, bias, num_input_axes=num_input_axes)
