"""Counts floating-point operations in the traced program instead of using a formula.

XLA's own count takes the body of a loop once, whatever its length, so it is useless for scanned
layers. Here every matrix product of the traced program is counted, and loops are multiplied by
their length. This works for any architecture.
"""

import math
from collections.abc import Callable

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn
from jaxtyping import Array, PyTree

from transformer.training.accelerators import accelerator_of


def count_flops(function: Callable[..., Array], *args: PyTree) -> int:
    """FLOPs of the matrix products in one call: two for each multiply-add.

    Args:
        function: is traced, not run.
        *args: arrays or their shapes.

    Raises:
        ValueError: if the program loops an unknown number of times.
    """
    return _count(jax.make_jaxpr(function)(*args).jaxpr)


def peak_flops() -> float | None:
    """Peak FLOP/s of all devices together; None if unknown (CPUs)."""
    accelerator = accelerator_of(jax.devices()[0].device_kind)
    if accelerator is None:
        return None
    return accelerator.peak_flops / accelerator.devices * jax.device_count()


def _count(jaxpr: Jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name == "dot_general":
            total += _dot_flops(equation)
        elif name == "ragged_dot_general":
            total += _ragged_dot_flops(equation)
        elif name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            output_features = equation.params["dimension_numbers"].rhs_spec[0]
            per_output = math.prod(kernel) // kernel[output_features]
            total += 2 * math.prod(equation.outvars[0].aval.shape) * per_output
        elif name == "while" and _count(equation.params["body_jaxpr"].jaxpr):
            raise ValueError("a loop of unknown length multiplies matrices: it cannot be counted.")
        elif name == "cond":
            total += max(_count(branch.jaxpr) for branch in equation.params["branches"])
        else:
            times = equation.params.get("length", 1) if name == "scan" else 1
            total += times * sum(_count(inner) for inner in _inner(equation))
    return total


def _inner(equation: JaxprEqn) -> list[Jaxpr]:
    """The programs nested in an equation: jit, checkpoint, scan, custom derivatives."""
    found = []
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        program = equation.params.get(key)
        if program is not None:
            found.append(program.jaxpr if isinstance(program, ClosedJaxpr) else program)
    return found


def _dot_flops(equation: JaxprEqn) -> int:
    left = equation.invars[0].aval.shape
    (contracted, _), _ = equation.params["dimension_numbers"]
    inner = math.prod(left[axis] for axis in contracted)
    return 2 * inner * math.prod(equation.outvars[0].aval.shape)


def _ragged_dot_flops(equation: JaxprEqn) -> int:
    """FLOPs of multiplying each row by its group's kernel, however a backend computes it."""
    left, _, groups = (operand.aval.shape for operand in equation.invars)
    numbers = equation.params["ragged_dot_dimension_numbers"]
    (contracted, _), _ = numbers.dot_dimension_numbers
    inner = math.prod(left[axis] for axis in contracted)
    flops = 2 * inner * math.prod(equation.outvars[0].aval.shape)
    # If the rows are contracted, each group has a result that sums over its own rows only.
    summed = set(numbers.lhs_ragged_dimensions) <= set(contracted)
    return flops // groups[-1] if summed else flops
