"""AdamW (Loshchilov and Hutter 2019)."""

import optax

from transformer.training.optimizers import Optimizer
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
    return optax.adamw(
        schedule,
        config.beta1,
        config.beta2,
        config.epsilon,
        weight_decay=config.weight_decay,
        mask=decayed,
    )
