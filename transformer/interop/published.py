"""What readers of published checkpoints share: their result, their checks, layouts of arrays."""

import functools
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from flax import traverse_util

from transformer.errors import DataError


class Published(NamedTuple):
    """A published checkpoint.

    Attributes:
        model: fields of `config.model`.
        job: the name of the task that its head is for.
        labels: names of the head's outputs; empty without a head of its own.
        params: parameters by path.
        unused: names of arrays that have no place in our model.
        preparation: fields of `config.task` that say how inputs are prepared, as far as the files
            say.
    """

    model: dict[str, Any]
    job: str
    labels: tuple[str, ...]
    params: dict[str, np.ndarray]
    unused: list[str]
    preparation: dict[str, Any]


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        DataError: if there is none.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} is no JSON object.")
    return content


def parameter_shapes(model: Any, use_all: Callable, *inputs: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of all parameters that a model can have, by path.

    Args:
        model: with `num_layers` layers in `blocks`, unrolled.
        use_all: calls whatever has parameters.
        *inputs: of `use_all`.
    """
    # Layers are alike: one tells the shapes of all.
    init = functools.partial(model.clone(num_layers=1).init, method=use_all)
    shapes: Any = jax.eval_shape(init, jax.random.key(0), *inputs)["params"]
    flat: Any = traverse_util.flatten_dict(nn.meta.unbox(shapes), sep="/")
    return {
        path.replace("/layer_0/", f"/layer_{layer}/"): tuple(leaf.shape)
        for path, leaf in flat.items()
        for layer in range(model.num_layers if "/layer_0/" in path else 1)
    }


def require_complete(
    found: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    heads: tuple[str, ...],
    folder: Path,
) -> None:
    """Refuses a model that lacks parts of the encoder, or parts of a head that it has.

    Args:
        found: what was read, by path.
        shapes: of all parameters that the model can have.
        heads: what stands first in the paths of heads.
        folder: for the message.

    Raises:
        DataError: naming one of them.
    """
    there = {path.split("/")[0] for path in found} & set(heads)
    missing = [
        path
        for path in shapes
        if path not in found and (path.split("/")[0] in there or not path.startswith(heads))
    ]
    if missing:
        raise DataError(
            f"{folder} lacks {len(missing)} of the arrays that its config.json asks for, such as "
            f"what is {missing[0]} here: is a file missing?"
        )


def converted(
    path: str, name: str, array: np.ndarray, shape: tuple[int, ...], folder: Path
) -> np.ndarray:
    """An array in our shape: kernels have their inputs first, heads an axis of their own.

    Raises:
        DataError: if it has another shape.
    """
    theirs = shape
    if path.endswith("/kernel"):
        # Attention's output is the one kernel with two axes of inputs.
        num_inputs = 2 if path.endswith("attention/output/kernel") else 1
        theirs = (math.prod(shape[num_inputs:]), math.prod(shape[:num_inputs]))
    elif path.endswith("/bias"):
        theirs = (math.prod(shape),)
    if array.shape != theirs:
        raise DataError(
            f"{folder}: {name} has the shape {list(array.shape)}, and config.json asks for "
            f"{list(theirs)}."
        )
    array = array.astype(np.float32)
    return (array.T if path.endswith("/kernel") else array).reshape(shape)
