"""Everything that changes during training, in one tree."""

import dataclasses

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from transformer.training.precision import FULL, Precision, narrowed
from transformer.training.selection import Chooser, everything, split


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The state between two steps.

    Attributes:
        step: how many steps have been taken, int32.
        params: the parameters.
        optimizer: the optimizer's state for the trained parameters.
        average: the moving average of the parameters, or None.
        key: the base of all randomness; it never changes, and each step folds its number in.
    """

    # Not Array, not Params: JAX rebuilds pytrees with placeholders in place of arrays.
    step: PyTree
    params: PyTree
    optimizer: PyTree
    average: PyTree
    key: PyTree

    @property
    def evaluated(self) -> PyTree:
        """The parameters to evaluate and generate with."""
        return self.params if self.average is None else self.average


def create(
    params: PyTree,
    optimizer: optax.GradientTransformation,
    key: Array,
    *,
    average: bool,
    trained: Chooser = everything,
    precision: Precision = FULL,
) -> TrainState:
    """The state before the first step.

    Args:
        params: the parameters, in float32.
        optimizer: the optimizer.
        key: the base of all randomness.
        average: whether to keep a moving average, which is in float32 always.
        trained: which parameters are trained.
        precision: the dtypes of what is kept.
    """
    moments = optimizer.init(split(params, trained)[0])
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=narrowed(params, precision.parameters),
        optimizer=narrowed(moments, precision.moments),
        # Copied because the step donates its state, and one buffer cannot be donated twice.
        average=jax.tree.map(jnp.copy, params) if average else None,
        key=key,
    )
