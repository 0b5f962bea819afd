"""Selects parameters by path: which are trained, and with which factor of the learning rate.

A path joins the names of nested modules with slashes, as in
`blocks/layer_0/attention/query/kernel`. Patterns are regular expressions that may match anywhere in
a path.
"""

import itertools
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax.numpy as jnp
from flax import traverse_util
from jaxtyping import Array, PyTree

from transformer.errors import ConfigError
from transformer.nn.layouts import Place, place_of
from transformer.sharding import logical_axes
from transformer.types import Boxed, ByPath, Params

Chooser = Callable[[str], bool]

# The key of the adapters among the parameters.
ADAPTERS = "lora"


def everything(path: str) -> bool:
    """Chooses all parameters."""
    return True


def chooser(pattern: str, field: str, tree: Params) -> Chooser:
    """Chooses the paths that match a pattern; none if it is empty.

    Args:
        pattern: a regular expression.
        field: its key in the config, for messages.
        tree: the parameters; at least one must match.

    Raises:
        ConfigError: if it is not a regular expression, or no parameter matches.
    """
    if not pattern:
        return lambda path: False
    compiled = compiled_pattern(pattern, field)
    paths = list(by_path(tree))
    if not any(compiled.search(path) for path in paths):
        raise ConfigError(
            f"config.{field} is {pattern!r}, which matches no parameter. There are, for example: "
            f"{', '.join(paths[:: max(1, len(paths) // 6)])}."
        )
    return lambda path: bool(compiled.search(path))


def compiled_pattern(pattern: str, field: str) -> re.Pattern[str]:
    """Compiles a regular expression.

    Raises:
        ConfigError: if it is not a regular expression.
    """
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            f"config.{field} is {pattern!r}, which is no regular expression: {error}."
        ) from None


def by_path(tree: Params) -> ByPath:
    """The parameters of a nested dict, by path."""
    return traverse_util.flatten_dict(tree, sep="/")


def from_paths(flat: ByPath) -> Params:
    """The nested dict of parameters by path: the inverse of `by_path`."""
    return traverse_util.unflatten_dict(flat, sep="/")


def split(tree: Params, chosen: Chooser) -> tuple[Params, Params]:
    """The chosen parameters and the others, as two nested dicts."""
    flat = by_path(tree)
    inside = {path: leaf for path, leaf in flat.items() if chosen(path)}
    outside = {path: leaf for path, leaf in flat.items() if path not in inside}
    return from_paths(inside), from_paths(outside)


def join(chosen: Params, others: Params) -> Params:
    """Joins the parameters that `split` separated to one nested dict."""
    return from_paths({**by_path(chosen), **by_path(others)}) if others else chosen


def rate_factors(
    boxed: Boxed, layer_decay: float, scales: str, model: Boxed | None = None
) -> ByPath:
    """The factor by which the learning rate of each parameter is multiplied.

    Args:
        boxed: the trained parameters or their shapes with the logical names of their axes.
        layer_decay: a parameter `n` layers below the top gets the factor `layer_decay ** n` (Clark
            et al. 2020, appendix A). Heads and last norms are at the top, and the layers of each
            stack are counted from its own top. Embeddings are one layer below the deepest stack:
            tables of tokens and positions, patches, and learned tokens (the class token,
            registers, mask tokens), as in BEiT (Bao et al. 2022) and MAE (He et al. 2022).
        scales: `PATTERN=FACTOR`, separated by commas; the first match counts (discriminative rates:
            Howard and Ruder 2018, section 3.2).
        model: all parameters of the model, from which the depth of its stacks is known; None means
            that all are trained.

    Returns:
        A number for each path; for stacked layers an array with one number per layer.

    Raises:
        ConfigError: if `scales` has another form, or a pattern matches nothing.
    """
    depths = _stack_depths(boxed if model is None else model)
    rules = list(_rules(scales, boxed))
    factors = {}
    for path, leaf in by_path(boxed).items():
        scale = next((factor for chosen, factor in rules if chosen(path)), 1.0)
        factors[path] = scale * _decayed(path, leaf, layer_decay, depths)
    return factors


def is_in_stack(path: str) -> bool:
    """Whether a parameter belongs to a layer of a stack; see `nn.stack.Stack`."""
    return place_of(path) is not None


class _Depth(NamedTuple):
    """The depth of a stack.

    Attributes:
        layers: L, the number of layers.
        first: number of unstacked layers before the stacked ones.
        turns: how many different blocks alternate in the stacked layers.
    """

    layers: int
    first: int
    turns: int


def _rules(scales: str, tree: Boxed) -> Iterable[tuple[Chooser, float]]:
    field = "optimizer.rate_scales"
    for rule in filter(None, (part.strip() for part in scales.split(","))):
        pattern, _, factor = rule.rpartition("=")
        try:
            value = float(factor)
        except ValueError:
            value = -1.0
        if not pattern or not 0.0 <= value <= float(jnp.finfo(jnp.float32).max):
            raise ConfigError(
                f"config.{field} holds {rule!r}: write PATTERN=FACTOR, separated by commas, such "
                f"as output=10,embedding=0.1."
            )
        yield chooser(pattern, field, tree), value


def _stack_depths(boxed: Boxed) -> dict[str, _Depth]:
    """The depth of each stack, by the path of the stack."""
    alone: dict[str, set[int]] = {}
    rounds: dict[str, dict[int, int]] = {}
    for path, leaf in by_path(boxed).items():
        place = _place(path)
        if place is not None and place.layer is not None:
            alone.setdefault(place.stack, set()).add(place.layer)
        elif place is not None:
            count = leaf.value.shape[logical_axes(leaf).index("layers")]
            rounds.setdefault(place.stack, {})[place.turn] = count
    depths = {}
    for stack in alone.keys() | rounds.keys():
        numbers, turns = alone.get(stack, set()), rounds.get(stack, {})
        first = next(n for n in itertools.count() if n not in numbers)
        # Only some layers of an unrolled stack may be present.
        layers = max(len(numbers) + sum(turns.values()), max(numbers, default=-1) + 1)
        depths[stack] = _Depth(layers, first, len(turns))
    return depths


def _place(path: str) -> Place | None:
    """The place of a parameter, or of its adapter, in a stack; None outside of stacks."""
    return place_of(path.removeprefix(f"{ADAPTERS}/"))


def _decayed(
    path: str, leaf: PyTree, layer_decay: float, depths: dict[str, _Depth]
) -> float | Array:
    """The factor of a parameter, from the number of layers between it and the top."""
    place, names = _place(path), logical_axes(leaf)
    if place is None:
        is_input = "embedding" in path or "tokens" in names
        deepest = max((depth.layers for depth in depths.values()), default=0)
        return layer_decay ** (1 + deepest) if is_input else 1.0
    depth = depths[place.stack]
    if place.layer is not None:
        return layer_decay ** (depth.layers - place.layer)
    if layer_decay == 1.0:
        return 1.0
    axis = names.index("layers")
    shape = [-1 if index == axis else 1 for index in range(len(names))]
    layers = depth.first + place.turn + depth.turns * jnp.arange(leaf.value.shape[axis])
    return (layer_decay ** (depth.layers - layers)).reshape(shape)
