"""The outputs of a model for all rows of some batches."""

import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import PyTree

from transformer.data.order import Batches
from transformer.tasks.parts.models import Model
from transformer.types import HostBatch, Params


@functools.partial(jax.jit, static_argnums=(0, 1))
def apply(model: Model, method: str, params: Params, *inputs: ArrayLike | None) -> PyTree:
    """Calls a method of a model; it is compiled once for each shape."""
    return model.apply({"params": params}, *inputs, method=method)


def outputs_of(
    model: Model,
    method: str,
    params: Params,
    batches: Batches,
    inputs: Callable[[HostBatch], Sequence[ArrayLike]],
    on_progress: Callable[[int], None],
) -> np.ndarray:
    """The outputs of a method for all `valid` rows, in order.

    Args:
        model: the model.
        method: the name of the method, which returns one array.
        params: the parameters of the model.
        batches: batches of rows.
        inputs: the arguments of the method, from a batch.
        on_progress: called with the number of rows that are done.
    """
    found: list[np.ndarray] = []
    for step in range(len(batches)):
        batch = batches[step]
        output = apply(model, method, params, *inputs(batch))
        found.append(np.asarray(output)[batch["valid"] == 1])
        on_progress(sum(map(len, found)))
    return np.concatenate(found)
