"""Dense products."""

import math

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Float

from transformer.ops.platforms import platform

# The precision of JAX that rounds the factors of products to bfloat16 and adds up in float32.
_ROUNDED = "BF16_BF16_F32"


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
    rounded = jax.config.jax_default_matmul_precision == _ROUNDED and platform() == "cpu"
    product = _rounded_product if rounded else jnp.matmul
    output = product(inputs.reshape(-1, input_size), kernel.reshape(input_size, output_size))
    if bias is not None:
        output = output + bias.reshape(output_size)
    return output.reshape(*batch_shape, *output_shape)


@jax.custom_vjp
def _rounded_product(left: Float[Array, "M K"], right: Float[Array, "K N"]) -> Float[Array, "M N"]:
    """The product of factors rounded to bfloat16, which the backward pass rounds, too."""
    return _rounded(left, right, 0).astype(jnp.result_type(left, right))


def _rounded(left: Array, right: Array, right_axis: int) -> Float[Array, "M N"]:
    """Contracts the last axis of `left` with an axis of `right`; float32."""
    factors = left.astype(jnp.bfloat16), right.astype(jnp.bfloat16)
    dimensions = ((1,), (right_axis,)), ((), ())
    return jax.lax.dot_general(*factors, dimensions, preferred_element_type=jnp.float32)


def _rounded_forward(left: Array, right: Array) -> tuple[Array, tuple[Array, Array]]:
    return _rounded_product(left, right), (left, right)


def _rounded_backward(factors: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    left, right = factors
    # The compiler would read `left` across its rows, for which it has no fast product.
    turned = with_layout_constraint(left.astype(jnp.bfloat16).T, Layout((0, 1)))
    of_left, of_right = _rounded(gradient, right, 1), _rounded(turned, gradient, 0)
    return of_left.astype(left.dtype), of_right.astype(right.dtype)


_rounded_product.defvjp(_rounded_forward, _rounded_backward)
