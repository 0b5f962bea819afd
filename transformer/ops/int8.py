"""Numbers of 8 bits with scales, for weights and caches a quarter of the size of float32.

Symmetric: 0 stays 0, and the largest magnitude that shares a scale becomes 127 (Jacob et al. 2018,
section 2; Dettmers et al. 2022, section 2).
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float
from jaxtyping import Int8 as Bytes

from transformer.types import Leaf

_LARGEST = 127


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Int8:
    """An array of whole numbers, each times a scale.

    Attributes:
        numbers: int8, `[...]`.
        scales: float32, with as many axes; of size 1 where numbers share a scale.
    """

    numbers: Leaf
    scales: Leaf

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array that this stands for."""
        return self.numbers.shape

    def restored(self, dtype: DTypeLike) -> Float[Array, "..."]:
        """The array in floating point."""
        return (self.numbers.astype(jnp.float32) * self.scales).astype(dtype)


def rounded(values: Float[Array, "..."], axes: int | tuple[int, ...]) -> Int8:
    """The nearest numbers of 8 bits.

    Args:
        values: any finite numbers.
        axes: along these, numbers share a scale.
    """
    values = values.astype(jnp.float32)
    largest = jnp.max(jnp.abs(values), axis=axes, keepdims=True)
    scales = jnp.where(largest > 0.0, largest, 1.0) / _LARGEST
    return Int8(jnp.round(values / scales).astype(jnp.int8), scales)


def int8_dense(
    inputs: Float[Array, "..."],
    kernel: Int8,
    bias: Float[Array, "..."] | None = None,
    *,
    num_input_axes: int = 1,
) -> Float[Array, "..."]:
    """`ops.dense.dense` with a kernel in 8 bits.

    The inputs are the sum of two rounded arrays, which are rows of one product: the second is what
    the first leaves, so that less than 1/30,000 of the largest input is lost. The product itself is
    exact, in 32 bits. Processors have such products of 8 bits, but few have one of 8 bits with
    floating point: a kernel restored to that would be written and read as a whole for every token.

    Args:
        inputs: `[..., *I]`.
        kernel: `[*I, *O]`, with a scale for each output.
        bias: `[*O]`.
        num_input_axes: how many axes I has.

    Returns:
        `[..., *O]`, in the dtype of the inputs.
    """
    batch_shape = inputs.shape[: inputs.ndim - num_input_axes]
    output_shape = kernel.shape[num_input_axes:]
    input_size, output_size = math.prod(kernel.shape[:num_input_axes]), math.prod(output_shape)
    numbers = kernel.numbers.reshape(input_size, output_size)
    output = _products(inputs.reshape(-1, input_size), numbers, axis=0)
    output = output * kernel.scales.reshape(output_size)
    if bias is not None:
        output = output + bias.reshape(output_size)
    return output.astype(inputs.dtype).reshape(*batch_shape, *output_shape)


def int8_scores(inputs: Float[Array, "*B D"], table: Int8) -> Float[Array, "*B V"]:
    """The products of each input with each row of a table `[V, D]`, which has a scale for each row.

    The table is read as it lies: XLA's CPU backend would write the transposed one for every token.
    """
    products = _products(inputs.reshape(-1, inputs.shape[-1]), table.numbers, axis=1)
    scores = products * table.scales[:, 0]
    return scores.astype(inputs.dtype).reshape(*inputs.shape[:-1], len(table.numbers))


def _products(
    inputs: Float[Array, "B I"], numbers: Bytes[Array, "_ _"], axis: int
) -> Float[Array, "B O"]:
    """The products of inputs with whole numbers, whose `axis` is I and whose other axis is O."""
    inputs = inputs.astype(jnp.float32)
    coarse = rounded(inputs, axes=-1)
    fine = rounded(inputs - coarse.restored(jnp.float32), axes=-1)
    products = jax.lax.dot_general(
        jnp.concatenate([coarse.numbers, fine.numbers]),
        numbers,
        (((1,), (axis,)), ((), ())),
        preferred_element_type=jnp.int32,
    ).astype(jnp.float32)
    return products[: len(inputs)] * coarse.scales + products[len(inputs) :] * fine.scales
