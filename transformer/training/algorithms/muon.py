"""Muon (Jordan et al. 2024) for the matrices of blocks, and AdamW for all other parameters.

AdamW trains embeddings, heads, norms, biases and adapters.
"""

import math

import jax
import optax
from jaxtyping import PyTree
from optax import contrib

from transformer.sharding import is_box, logical_axes, num_batch_axes
from transformer.training.optimizers import Optimizer
from transformer.training.selection import ADAPTERS, is_in_stack
from transformer.types import Boxed, Params


def make(
    config: Optimizer, schedule: optax.Schedule, boxed: Boxed, decayed: Params
) -> optax.GradientTransformation:
    """The update rule.

    Args:
        config: the constants.
        schedule: the learning rate of each step.
        boxed: the trained parameters or their shapes, with the logical names of their axes.
        decayed: True for parameters with weight decay.
    """
    # Muon's own weight-decay mask would not reach the parameters that AdamW trains.
    decay = optax.add_decayed_weights(config.weight_decay, decayed)
    return optax.chain(_muon_or_adam(config, boxed), decay, optax.scale_by_learning_rate(schedule))


def _muon_or_adam(config: Optimizer, boxed: Boxed) -> optax.GradientTransformation:
    """Muon for matrices of blocks, Adam for the rest: updates before rate and decay are applied."""
    axes = {
        path: muon_axes("/".join(key.key for key in path), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(boxed, is_leaf=is_box)
    }

    def as_long_as_adam(updates: PyTree, params: PyTree | None) -> PyTree:
        # One learning rate then serves all parameters (Liu et al. 2025, section 2.2).
        return jax.tree_util.tree_map_with_path(
            lambda path, x: 0.2 * math.sqrt(_longer_side(axes[path], x.shape)) * x, updates
        )

    muon = contrib.scale_by_muon(
        beta=config.muon_beta,
        eps=config.epsilon,
        weight_dimension_numbers=lambda tree: jax.tree_util.tree_map_with_path(
            lambda path, _: axes[path], tree
        ),
    )
    return optax.partition(
        {
            "muon": optax.chain(muon, optax.stateless(as_long_as_adam)),
            "adam": optax.scale_by_adam(config.beta1, config.beta2, config.epsilon),
        },
        lambda tree: jax.tree_util.tree_map_with_path(
            lambda path, _: "muon" if axes[path] else "adam", tree
        ),
    )


def _longer_side(axes: contrib.MuonDimensionNumbers, shape: tuple[int, ...]) -> int:
    """The larger of the number of rows and columns."""
    sides = (axes.reduction_axis, axes.output_axis)
    return max(math.prod(shape[axis] for axis in side) for side in sides)


def muon_axes(path: str, leaf: PyTree) -> contrib.MuonDimensionNumbers | None:
    """Which axes of a parameter Muon treats as rows and columns; None leaves it to AdamW.

    Muon is for the matrices inside blocks (Jordan et al. 2024): their kernels from and to the
    model's width. Stacked layers and experts are many matrices, each orthogonalized separately.

    Args:
        path: the path of the parameter.
        leaf: the parameter or its shape with the logical names of its axes.
    """
    names = logical_axes(leaf)
    batch = num_batch_axes(names)
    axes = tuple(range(batch, len(names)))
    if not is_in_stack(path) or path.startswith(f"{ADAPTERS}/") or len(axes) < 2:
        return None
    if [names[axis] for axis in axes].count("embed") != 1:
        return None
    # A kernel's input axes come first: [embed, heads, head_dim] or [heads, head_dim, embed].
    inputs = 1 if names[batch] == "embed" else len(axes) - 1
    return contrib.MuonDimensionNumbers(reduction_axis=axes[:inputs], output_axis=axes[inputs:])
