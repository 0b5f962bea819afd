"""Dense products."""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from transformer.ops.platforms import is_one_cpu


def dense(
    inputs: Float[Array, "..."],
    kernel: Float[Array, "..."],
    bias: Float[Array, "..."] | None = None,
    *,
    num_input_axes: int = 1,
) -> Float[Array, "..."]:
    """Contracts the last axes of `inputs` with the first axes of `kernel`, and adds `bias`.

    On one device the product is always one plain matrix product: leading axes are collapsed first.
    XLA's CPU backend runs `[B*T, D] @ [D, F]` several times faster than the same product with three
    axes, forward and backward; on other backends the two are equal. Over several devices the axes
    are kept, as each may be sharded.

    Args:
        inputs: `[..., *I]`.
        kernel: `[*I, *O]`.
        bias: `[*O]`.
        num_input_axes: how many axes I has.

    Returns:
        `[..., *O]`.
    """
    batch_shape = inputs.shape[: inputs.ndim - num_input_axes]
    input_shape, output_shape = kernel.shape[:num_input_axes], kernel.shape[num_input_axes:]
    if inputs.shape[inputs.ndim - num_input_axes :] != input_shape:
        raise ValueError(f"inputs {inputs.shape} do not end in the kernel's {input_shape}.")
    if jax.sharding.get_abstract_mesh().size > 1:
        output = jnp.tensordot(inputs, kernel, num_input_axes)
        return output if bias is None else output + bias
    input_size, output_size = math.prod(input_shape), math.prod(output_shape)
    rows, matrix = inputs.reshape(-1, input_size), kernel.reshape(input_size, output_size)
    output = _narrowed(rows, matrix) if input_size > output_size and is_one_cpu() else rows @ matrix
    if bias is not None:
        output = output + bias.reshape(output_size)
    return output.reshape(*batch_shape, *output_shape)


def dense_by_rows(
    inputs: Float[Array, "... D"], table: Float[Array, "V D"]
) -> Float[Array, "... V"]:
    """Contracts the last axes of both; as `dense(inputs, table.T)`, and nothing is turned.

    Args:
        inputs: one vector for each position.
        table: one vector for each output.
    """
    many = jax.sharding.get_abstract_mesh().size > 1
    rows = inputs if many else inputs.reshape(-1, inputs.shape[-1])
    output = jax.lax.dot_general(rows, table, (((rows.ndim - 1,), (1,)), ((), ())))
    return output.reshape(*inputs.shape[:-1], table.shape[0])


@jax.custom_vjp
def _narrowed(rows: Float[Array, "M I"], kernel: Float[Array, "I O"]) -> Float[Array, "M O"]:
    """The product with a kernel of fewer outputs than inputs, faster in its gradient on a CPU.

    For the gradient of the kernel a CPU's library transposes the left matrix in memory. That is
    `rows`; here it is the gradient of the output, which is smaller.
    """
    return rows @ kernel


def _narrowed_forward(rows: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return rows @ kernel, (rows, kernel)


def _narrowed_backward(residuals: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    rows, kernel = residuals
    # Without the barrier the compiler would turn the product round again.
    return gradient @ kernel.T, lax.optimization_barrier(gradient.T @ rows).T


_narrowed.defvjp(_narrowed_forward, _narrowed_backward)
