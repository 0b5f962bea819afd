"""The two layouts of a stack's parameters: a tree for each layer, or one tree of stacked leaves.

`nn.stack.Stack` makes the first when it is unrolled and the second when it is scanned. Both hold
the same numbers. Only this file knows what layers are called.
"""

import itertools
import re
from typing import NamedTuple

import jax
import numpy as np

from transformer.types import Params

# The name that holds the stacked parameters of a scanned stack.
STACKED = "layers"
_LAYER = re.compile(r"layer_(\d+)")
_IN_STACK = re.compile(rf"(.*?)/?\b(?:{STACKED}(?:/turn_(\d+))?|layer_(\d+))/")


class Place(NamedTuple):
    """The place of a parameter in a stack.

    Attributes:
        stack: the path of the stack.
        layer: the layer; None if the parameters of several layers are stacked.
        turn: which of the blocks that take turns.
    """

    stack: str
    layer: int | None
    turn: int


def layer_name(layer: int) -> str:
    """The name of one layer of a stack whose parameters are not stacked."""
    return f"layer_{layer}"


def layer_number(name: str) -> int | None:
    """The layer number in a name made by `layer_name`; None for any other name."""
    found = _LAYER.fullmatch(name)
    return None if found is None else int(found[1])


def turn_name(turn: int) -> str:
    """The name of one of the blocks that take turns in a scanned stack."""
    return f"turn_{turn}"


def place_of(path: str) -> Place | None:
    """The place in a stack of the parameter at a path; None if it is in no stack."""
    found = _IN_STACK.match(path)
    if found is None:
        return None
    stack, turn, layer = found.groups()
    return Place(stack, None if layer is None else int(layer), int(turn or 0))


def stacked(params: Params, *, first: int = 0, turns: int = 1) -> Params:
    """Converts the parameters of an unrolled or a scanned model to those of a scanned one.

    Args:
        params: a nested dict of arrays.
        first: how many first layers of each stack are not stacked; see `nn.stack.Stack`.
        turns: how many blocks take turns.
    """
    found = {
        name: stacked(value, first=first, turns=turns) if isinstance(value, dict) else value
        for name, value in params.items()
    }
    return _with_stack(found, first, turns)


def _with_stack(params: Params, first: int, turns: int) -> Params:
    """Stacks the layers at one node of the tree, if there are enough of them."""
    numbers = sorted(n for name in params if (n := layer_number(name)) is not None)
    rounds = max(0, len(numbers) - first) // turns
    if not rounds:
        return dict(params)
    last = first + rounds * turns
    stacks = []
    for turn in range(turns):
        trees = [params[layer_name(n)] for n in numbers[first + turn : last : turns]]
        stacks.append(jax.tree.map(lambda *leaves: np.stack(leaves), *trees))
    looped = {layer_name(n) for n in numbers[first:last]}
    others = {name: value for name, value in params.items() if name not in looped}
    by_turn = {turn_name(turn): stack for turn, stack in enumerate(stacks)}
    return {**others, STACKED: by_turn if turns > 1 else stacks[0]}


def unstacked(params: Params) -> Params:
    """Converts the parameters of a scanned or an unrolled model to those of an unrolled one.

    Args:
        params: a nested dict of arrays.
    """
    result: Params = {}
    for name, value in params.items():
        if name == STACKED and isinstance(value, dict):
            first, turns = shape_of(params)
            for turn in range(turns):
                stack = value[turn_name(turn)] if turns > 1 else value
                for index in range(len(jax.tree.leaves(stack)[0])):
                    layer = layer_name(first + index * turns + turn)
                    result[layer] = jax.tree.map(lambda leaf: leaf[index], stack)  # noqa: B023
        else:
            result[name] = unstacked(value) if isinstance(value, dict) else value
    return result


def shape_of(params: Params) -> tuple[int, int]:
    """How many first layers of a scanned stack are not stacked, and how many blocks take turns."""
    first = next(n for n in itertools.count() if layer_name(n) not in params)
    turns = sum(turn_name(n) in params[STACKED] for n in range(len(params[STACKED])))
    return first, max(1, turns)


def laid_out_like(params: Params, other: Params) -> Params:
    """Converts each stack to the layout that it has in another tree, if it is there."""
    if STACKED in other:
        params = _with_stack(unstacked(params), *shape_of(other))
    elif any(layer_number(name) is not None for name in other):
        params = unstacked(params)
    return {
        name: laid_out_like(value, other[name])
        if isinstance(value, dict) and isinstance(other.get(name), dict)
        else value
        for name, value in params.items()
    }
