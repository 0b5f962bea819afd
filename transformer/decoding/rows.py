"""The rows of a batch one after another, where that is faster than all at once."""

from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PyTree

from transformer.nn.encoder_decoder import AnyEncoderDecoder
from transformer.ops.platforms import is_one_cpu
from transformer.types import Params

# From this many vectors in a row on, a CPU computes one row after another. Measured by
# benchmarks/speech.py with 1,500 of them; see LOG.md.
LONG = 1024

Inputs = PyTree[Array | np.ndarray]
Outputs = TypeVar("Outputs", bound=PyTree[Array])


def row_by_row(compute: Callable[..., Outputs], length: int, *inputs: Inputs) -> Outputs:
    """The same as `compute(*inputs)`, one row after another if a CPU computes long rows.

    What a row needs then stays in the cache of a core from one layer to the next, and XLA
    multiplies matrices of 1,500 rows faster than of 15,000.

    Args:
        compute: its inputs and outputs all have a leading axis B, and rows do not depend on each
            other.
        length: how many vectors each row has.
        *inputs: of `compute`.
    """
    if length < LONG or not is_one_cpu():
        return compute(*inputs)

    def alone(row: tuple[PyTree[Array], ...]) -> Outputs:
        found = compute(*jax.tree.map(lambda x: x[None], row))
        return jax.tree.map(lambda x: x[0], found)

    return lax.map(alone, inputs)


def caches_row_by_row(
    model: AnyEncoderDecoder,
    compute: Callable[..., Outputs],
    memory: Float[Array, "B R D"],
    *others: Inputs,
) -> Outputs:
    """`row_by_row` for outputs with caches, and inputs of which the first is the memory."""
    if model.compute.scan_layers:  # These have a leading axis of layers, not of rows.
        return compute(memory, *others)
    return row_by_row(compute, memory.shape[1], memory, *others)


def encoded(
    model: AnyEncoderDecoder, params: Params, frames: Float[Array, "B S M"]
) -> Float[Array, "B R D"]:
    """The memory of recordings that fill their rows.

    Args:
        model: an encoder-decoder.
        params: its parameters.
        frames: what it reads.
    """

    def compute(frames: Array) -> Array:
        return model.apply({"params": params}, frames, method="encode")

    return row_by_row(compute, -(-frames.shape[1] // model.source_stride), frames)
