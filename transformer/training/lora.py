"""Low-rank adapters (Hu et al. 2021): `config.lora`.

A kernel W stays frozen, two thin matrices A and B are trained, and the model computes with
W + (alpha / rank) A B. This sum is computed from the parameters before the model is applied, so
every model can be adapted without code of its own. Each expert of a mixture has its own A and B.
"""

import dataclasses
import math
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from transformer.errors import ConfigError
from transformer.limits import Positive, Text, Whole
from transformer.sharding import logical_axes, num_batch_axes
from transformer.training.selection import (
    ADAPTERS,
    Chooser,
    by_path,
    chooser,
    compiled_pattern,
    from_paths,
)
from transformer.types import Boxed, ByPath, Params


@dataclasses.dataclass(frozen=True)
class LoRA:
    """Low-rank adapters; its fields are `config.lora`.

    Attributes:
        rank: rank of A B; 0 trains all parameters and adds none.
        alpha: A B is scaled by alpha / rank (section 4.1).
        targets: pattern of the kernels that get adapters; see `training.selection`. The paper
            adapts queries and values (section 4.2).
        trained: pattern of other parameters to train fully, such as new heads.
    """

    rank: Annotated[int, Whole(0, 1 << 16)] = 0
    alpha: Positive = 16.0
    targets: Text = "attention/(query|value)/kernel"
    trained: Text = "^output/"


def with_adapters(boxed: Boxed, config: LoRA, key: Array) -> Boxed:
    """Adds new adapters to the parameters; they change no output yet, because B is zero.

    Args:
        boxed: parameters with the logical names of their axes.
        config: `config.lora`.
        key: random key for A.

    Raises:
        ConfigError: if the targets match no parameter, or one that is not a matrix.
    """
    if not config.rank:
        return boxed
    chosen = chooser(config.targets, "lora.targets", boxed)
    adapters = {}
    for index, (path, leaf) in enumerate(sorted(by_path(boxed).items())):
        if chosen(path):
            key_a = jax.random.fold_in(key, index)
            adapters |= _adapter(path, leaf, config.rank, key_a)
    return {**boxed, ADAPTERS: from_paths(adapters)}


def is_trained(boxed: Boxed, config: LoRA) -> Chooser:
    """Chooses the adapters and the other trained parameters."""
    # The default pattern is for models with a separate head, which not all models have.
    default = config.trained == LoRA.trained
    compiled = compiled_pattern(config.trained, "lora.trained")
    also = compiled.search if default else chooser(config.trained, "lora.trained", boxed)
    return lambda path: path.startswith(f"{ADAPTERS}/") or bool(also(path))


def merged(params: Params, config: LoRA) -> Params:
    """The parameters of the model: W + (alpha / rank) A B for each adapter."""
    if not config.rank:
        return params
    flat = by_path({name: value for name, value in params.items() if name != ADAPTERS})
    adapters = by_path(params[ADAPTERS])
    scale = config.alpha / config.rank
    for path in [path.removesuffix("/a") for path in adapters if path.endswith("/a")]:
        a, b = adapters[f"{path}/a"], adapters[f"{path}/b"]
        flat[path] = flat[path] + scale * _product(a, b, flat[path].shape)
    return from_paths(flat)


def _adapter(path: str, leaf: PyTree, rank: int, key: Array) -> ByPath:
    """A and B of a kernel; one pair for every layer and expert stacked in it."""
    names, shape = logical_axes(leaf), leaf.value.shape
    batch = num_batch_axes(names)
    inputs = _num_input_axes(path, names[batch:])
    first, last = slice(batch, batch + inputs), slice(batch + inputs, None)
    fan_in = math.prod(shape[first])
    a = jax.random.normal(key, (*shape[: first.stop], rank)) / math.sqrt(fan_in)
    b = jnp.zeros((*shape[:batch], rank, *shape[last]))
    return {
        f"{path}/a": nn.LogicallyPartitioned(a, (*names[: first.stop], None)),
        f"{path}/b": nn.LogicallyPartitioned(b, (*names[:batch], None, *names[last])),
    }


def _num_input_axes(path: str, names: tuple[str | None, ...]) -> int:
    """How many axes the kernel contracts: those before, or up to, the model's width."""
    if len(names) < 2 or "embed" not in names or "tokens" in names:
        raise ConfigError(
            f"config.lora.targets matches {path}, which is no kernel from or to the model's width."
        )
    return 1 if names[0] == "embed" else len(names) - 1


def _product(
    a: Float[Array, "..."], b: Float[Array, "..."], shape: tuple[int, ...]
) -> Float[Array, "..."]:
    """A B in the shape of the kernel.

    Args:
        a: `[*batch, *inputs, r]`; the batch axes are layers and experts, if any.
        b: `[*batch, r, *outputs]`.
        shape: `[*batch, *inputs, *outputs]`.
    """
    # Batch axes appear in all three shapes, input and output axes in two.
    batch = shape[: a.ndim + b.ndim - 2 - len(shape)]
    rank = a.shape[-1]
    product = a.reshape(*batch, -1, rank) @ b.reshape(*batch, rank, -1)
    return product.reshape(shape)
