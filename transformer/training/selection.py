"""Parameters chosen by their paths: which are trained, and at which fraction of the rate.

A path joins the names from the module down with slashes, as in
`blocks/layer_0/attention/query/kernel`. Patterns are regular expressions that match anywhere in it.
"""

import re
from collections.abc import Callable, Iterable

import jax.numpy as jnp
from flax import traverse_util
from jaxtyping import Array, PyTree

from transformer.errors import ConfigError
from transformer.sharding import logical_axes
from transformer.types import Boxed, ByPath, Params

Chooser = Callable[[str], bool]

# Where adapters lie among the parameters.
ADAPTERS = "lora"

# A parameter of a stack: the path of the stack, and the layer where it is unrolled.
_IN_STACK = re.compile(rf"(?:{ADAPTERS}/)?(.*?)/?\b(?:layers|layer_(\d+))/")


def everything(path: str) -> bool:
    """Chooses all parameters."""
    return True


def chooser(pattern: str, field: str, tree: Params) -> Chooser:
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


def by_path(tree: Params) -> ByPath:
    """The parameters of a nested dict, by path."""
    return traverse_util.flatten_dict(tree, sep="/")


def from_paths(flat: ByPath) -> Params:
    """The nested dict of which `by_path` is the inverse."""
    return traverse_util.unflatten_dict(flat, sep="/")


def split(tree: Params, chosen: Chooser) -> tuple[Params, Params]:
    """The chosen parameters and the others, as two nested dicts."""
    flat = by_path(tree)
    inside = {path: leaf for path, leaf in flat.items() if chosen(path)}
    outside = {path: leaf for path, leaf in flat.items() if path not in inside}
    return from_paths(inside), from_paths(outside)


def join(chosen: Params, others: Params) -> Params:
    """The parameters that `split` separated, as one nested dict again."""
    return from_paths({**by_path(chosen), **by_path(others)}) if others else chosen


def rate_factors(
    boxed: Boxed, layer_decay: float, scales: str, model: Boxed | None = None
) -> ByPath:
    """The factor by which the learning rate of each parameter is multiplied.

    Args:
        boxed: the trained parameters or their shapes with the logical names of their axes.
        layer_decay: a parameter `n` layers below the top has `layer_decay ** n` (Clark et al.
            2020, appendix A). Heads and last norms stand at the top, and the layers of each stack
            are counted from its own top. Embeddings stand below the first layer of the deepest
            stack: tables of tokens and positions, patches, and learned tokens (the class token,
            registers, mask tokens), as in BEiT (Bao et al. 2022) and MAE (He et al. 2022).
        scales: `PATTERN=FACTOR`, separated by commas; the first that matches counts
            (discriminative rates: Howard and Ruder 2018, section 3.2).
        model: all parameters of the model, which say how deep its stacks are; None means that all
            are trained.

    Returns:
        A number for each path; for stacked layers an array that has one for each layer.

    Raises:
        ConfigError: if `scales` is not written so, or a pattern matches nothing.
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
    return _IN_STACK.match(path) is not None


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


def _stack_depths(boxed: Boxed) -> dict[str, int]:
    """How many layers each stack has, by the path of the stack."""
    depths: dict[str, int] = {}
    for path, leaf in by_path(boxed).items():
        found = _IN_STACK.match(path)
        if found:
            stack, layer = found.groups()
            names = logical_axes(leaf)
            depth = leaf.value.shape[names.index("layers")] if layer is None else int(layer) + 1
            depths[stack] = max(depths.get(stack, 0), depth)
    return depths


def _decayed(path: str, leaf: PyTree, layer_decay: float, depths: dict[str, int]) -> float | Array:
    """The factor of a parameter by how many layers it stands below the top."""
    found, names = _IN_STACK.match(path), logical_axes(leaf)
    if not found:
        is_input = "embedding" in path or "tokens" in names
        return layer_decay ** (1 + max(depths.values(), default=0)) if is_input else 1.0
    stack, layer = found.groups()
    if layer is not None:
        return layer_decay ** (depths[stack] - int(layer))
    if layer_decay == 1.0:
        return 1.0
    axis, depth = names.index("layers"), depths[stack]
    shape = [-1 if index == axis else 1 for index in range(len(names))]
    return (layer_decay ** (depth - jnp.arange(depth))).reshape(shape)
