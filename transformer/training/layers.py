"""The two layouts of a stack's parameters: a tree for each layer, or one of stacked leaves.

`nn.stack.Stack` makes the first when it is unrolled (`layer_0`, `layer_1`, ...) and the second when
it is scanned (`layers`, with a leading axis L). Both hold the same numbers.
"""

import re
from collections.abc import Mapping

import jax
import numpy as np

from transformer.types import Params

_LAYER = re.compile(r"layer_(\d+)")
_STACKED = "layers"


def stacked(params: Params) -> Params:
    """The parameters of a scanned model, from those of an unrolled or a scanned one.

    Args:
        params: a nested dict of arrays.
    """
    numbers = sorted(int(found[1]) for name in params if (found := _LAYER.fullmatch(name)))
    others = {
        name: stacked(value) if isinstance(value, Mapping) else value
        for name, value in params.items()
        if not _LAYER.fullmatch(name)
    }
    if not numbers:
        return others
    trees = [params[f"layer_{number}"] for number in numbers]
    return {**others, _STACKED: jax.tree.map(lambda *leaves: np.stack(leaves), *trees)}


def unstacked(params: Params) -> Params:
    """The parameters of an unrolled model, from those of a scanned or an unrolled one.

    Args:
        params: a nested dict of arrays.
    """
    result: Params = {}
    for name, value in params.items():
        if name == _STACKED and isinstance(value, Mapping):
            count = len(jax.tree.leaves(value)[0])
            for layer in range(count):
                result[f"layer_{layer}"] = jax.tree.map(lambda leaf: leaf[layer], value)  # noqa: B023
        else:
            result[name] = unstacked(value) if isinstance(value, Mapping) else value
    return result


def laid_out_like(params: Params, other: Params) -> Params:
    """The parameters with each stack in the layout that it has in another tree, if it is there."""
    if _STACKED in other:
        params = stacked(params)
    elif any(_LAYER.fullmatch(name) for name in other):
        params = unstacked(params)
    return {
        name: laid_out_like(value, other[name])
        if isinstance(value, Mapping) and isinstance(other.get(name), Mapping)
        else value
        for name, value in params.items()
    }


def laid_out(params: Params, *, scanned: bool) -> Params:
    """The parameters in one of the two layouts."""
    return stacked(params) if scanned else unstacked(params)
