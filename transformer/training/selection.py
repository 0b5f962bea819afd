"""Parameters chosen by their paths: which are trained, and at which fraction of the rate.

A path joins the names from the module down with slashes, as in
`blocks/layer_0/attention/query/kernel`. Patterns are regular expressions that match anywhere in it.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

import jax.numpy as jnp
from flax import traverse_util

from transformer.errors import ConfigError
from transformer.sharding import logical_axes

Chooser = Callable[[str], bool]


def everything(path: str) -> bool:
    """Chooses all parameters."""
    return True


def chooser(pattern: str, field: str, tree: Any) -> Chooser:
    """Chooses the paths that match a pattern; none if it is empty.

    Args:
        pattern: a regular expression.
        field: where it stands in the config, for messages.
        tree: of parameters, one of which must match.

    Raises:
        ConfigError: if it is no regular expression, or no parameter matches.
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
    """A regular expression.

    Raises:
        ConfigError: if it is none.
    """
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            f"config.{field} is {pattern!r}, which is no regular expression: {error}."
        ) from None


def by_path(tree: Any) -> dict[str, Any]:
    """The parameters of a nested dict, by path."""
    return traverse_util.flatten_dict(tree, sep="/")


def from_paths(flat: dict[str, Any]) -> Any:
    """The nested dict of which `by_path` is the inverse."""
    return traverse_util.unflatten_dict(flat, sep="/")


def split(tree: Any, chosen: Chooser) -> tuple[Any, Any]:
    """The chosen parameters and the others, each a nested dict of its own."""
    flat = by_path(tree)
    inside = {path: leaf for path, leaf in flat.items() if chosen(path)}
    outside = {path: leaf for path, leaf in flat.items() if path not in inside}
    return from_paths(inside), from_paths(outside)


def join(one: Any, other: Any) -> Any:
    """What `split` cut."""
    return from_paths({**by_path(one), **by_path(other)}) if other else one


def rate_factors(boxed: Any, layer_decay: float, scales: str) -> dict[str, Any]:
    """By which factor the learning rate of each parameter is multiplied.

    Args:
        boxed: parameters or their shapes with the logical names of their axes.
        layer_decay: a parameter `n` layers below the top has `layer_decay ** n` (Clark et al.
            2020, appendix A): heads stand at the top, embeddings below the first block.
        scales: `PATTERN=FACTOR`, separated by commas; the first that matches counts
            (discriminative rates: Howard and Ruder 2018, section 3.2).

    Returns:
        A number for each path; for stacked layers an array that has one for each layer.

    Raises:
        ConfigError: if `scales` is not written so, or a pattern matches nothing.
    """
    flat = by_path(boxed)
    depth = max((_num_layers(path, leaf) for path, leaf in flat.items()), default=0)
    rules = list(_rules(scales, boxed))
    factors = {}
    for path, leaf in flat.items():
        scale = next((factor for chosen, factor in rules if chosen(path)), 1.0)
        factors[path] = scale * _decayed(path, leaf, layer_decay, depth)
    return factors


def _rules(scales: str, tree: Any) -> Iterable[tuple[Chooser, float]]:
    field = "optimizer.rate_scales"
    for rule in filter(None, (part.strip() for part in scales.split(","))):
        pattern, _, factor = rule.rpartition("=")
        try:
            value = float(factor)
        except ValueError:
            value = -1.0
        if not pattern or not 0.0 <= value < float("inf"):
            raise ConfigError(
                f"config.{field} holds {rule!r}: write PATTERN=FACTOR, separated by commas, such "
                f"as output=10,embedding=0.1."
            )
        yield chooser(pattern, field, tree), value


def _num_layers(path: str, leaf: Any) -> int:
    """How many layers the stack of a parameter has at least."""
    names = logical_axes(leaf)
    if "layers" in names:
        return leaf.value.shape[names.index("layers")]
    found = re.search(r"layer_(\d+)/", path)
    return int(found[1]) + 1 if found else 0


def _decayed(path: str, leaf: Any, layer_decay: float, depth: int) -> Any:
    """The factor of a parameter by its place: embeddings 0, layers 1 to L, all others L + 1."""
    names = logical_axes(leaf)
    if "layers" in names and layer_decay != 1.0:
        axis = names.index("layers")
        place = jnp.arange(1, leaf.value.shape[axis] + 1)
        shape = [-1 if index == axis else 1 for index in range(len(names))]
        return (layer_decay ** (depth + 1 - place)).reshape(shape)
    found = re.search(r"layer_(\d+)/", path)
    outside = 0 if "embedding" in path else depth + 1
    place = int(found[1]) + 1 if found else outside
    return layer_decay ** (depth + 1 - place)
