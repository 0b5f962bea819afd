"""Optimizers and learning-rate schedules, from Optax: `config.optimizer`."""

import dataclasses
import importlib
from typing import Annotated

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Int

from transformer.limits import OneOf, PartOrAll, Real, Text
from transformer.sections import plugin_names
from transformer.sharding import is_box
from transformer.traced import Amount, AmountOrOff, Number, Rate, is_zero
from transformer.training import algorithms
from transformer.training.durations import Warmup
from transformer.training.precision import KeptDType, is_matrix
from transformer.training.selection import (
    Chooser,
    by_path,
    compiled_pattern,
    everything,
    from_paths,
    rate_factors,
    split,
)
from transformer.types import Boxed, ByPath, Params

SCHEDULES = ("cosine", "linear", "inverse_square_root", "constant")


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """How parameters change; its fields are `config.optimizer`.

    Attributes:
        algorithm: the update rule, a file of `training/algorithms/`.
        learning_rate: the peak learning rate.
        schedule: after the warmup: `cosine`, `linear`, `inverse_square_root` or `constant`.
        warmup: how long the learning rate rises from 0; a duration, see `training.durations`.
        final_fraction: the last learning rate of `cosine` and `linear` as a fraction of the peak,
            at
            most 1.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        epsilon: added to the root of the second moment; Lion has none.
        weight_decay: decay of matrices and embeddings; norms and biases never decay.
        clip_norm: gradients with a larger norm are scaled down to this norm. 0 never clips.
        muon_beta: momentum of Muon; its updates are scaled so that one `learning_rate` serves both
            its matrices and AdamW's parameters.
        moment_dtype: dtype in which the moments of matrices are kept: `float32` or `bfloat16`; see
            `training.precision`.
        layer_decay: multiplies the learning rate once for each layer between a parameter and the
            top; 1 treats all layers alike. See `training.selection.rate_factors`.
        rate_scales: factors of the learning rate of some parameters: `PATTERN=FACTOR`, separated by
            commas, such as `output=10,embedding=0.1`.
        frozen: pattern of the parameters that are not trained; see `training.selection`.
    """

    algorithm: Annotated[str, OneOf(plugin_names(algorithms))] = "adamw"
    learning_rate: Amount = 1e-3
    schedule: Annotated[str, OneOf(SCHEDULES)] = "cosine"
    warmup: Warmup = "100 steps"
    final_fraction: Annotated[Number, Real(0.0, 1.0)] = 0.1
    beta1: Rate = 0.9
    beta2: Rate = 0.95
    epsilon: Annotated[Number, Real(0.0, above=True)] = 1e-8
    weight_decay: Amount = 0.1
    clip_norm: AmountOrOff = 1.0
    muon_beta: Rate = 0.95
    moment_dtype: KeptDType = "float32"
    layer_decay: PartOrAll = 1.0
    rate_scales: Text = ""
    frozen: Text = ""

    def check(self) -> None:
        """Refuses values that cannot work."""
        compiled_pattern(self.frozen, "optimizer.frozen")


def make_schedule(
    config: Optimizer, *, warmup_steps: int | Int[Array, ""], total_steps: int | Int[Array, ""]
) -> optax.Schedule:
    """The learning rate as a function of the step, counted from 0.

    The rate of `step` belongs to update number step + 1. Over n steps of warmup, updates 1 to n use
    1/n to n/n of the peak. The last update of `cosine` and `linear` uses `final_fraction` of it. No
    Python branch depends on a number, so all numbers may be arguments of a compiled program.

    Args:
        config: `config.optimizer`.
        warmup_steps: the learning rate rises linearly to its peak over this many steps; 0 and 1
            begin at the peak.
        total_steps: steps of the run, including warmup.
    """
    peak, fraction = config.learning_rate, config.final_fraction
    warmup = jnp.maximum(warmup_steps, 1)
    rest = jnp.maximum(total_steps - warmup, 1)

    def schedule(step: ArrayLike) -> Array:
        update = jnp.asarray(step) + 1
        done = jnp.clip((update - warmup) / rest, 0.0, 1.0)
        match config.schedule:
            case "cosine":
                part = fraction + (1.0 - fraction) * 0.5 * (1.0 + jnp.cos(jnp.pi * done))
            case "linear":
                part = fraction + (1.0 - fraction) * (1.0 - done)
            case "inverse_square_root":
                # Vaswani et al. 2017, equation 3.
                part = jnp.sqrt(warmup / update)
            case _:
                part = jnp.ones_like(done)
        return peak * jnp.where(update < warmup, update / warmup, part)

    return schedule


def make_optimizer(
    config: Optimizer, schedule: optax.Schedule, boxed: Boxed, trained: Chooser = everything
) -> optax.GradientTransformation:
    """The optimizer of the trained parameters.

    Args:
        config: `config.optimizer`.
        schedule: the learning rate of each step.
        boxed: all parameters or their shapes with the logical names of their axes, which identify
            matrices even if layers are stacked.
        trained: which parameters are trained.
    """
    model, boxed = boxed, split(boxed, trained)[0]
    never = is_zero(config.clip_norm)
    clip = optax.identity() if never else optax.clip_by_global_norm(config.clip_norm)
    decayed = decay_mask(boxed)
    algorithm = importlib.import_module(f"{algorithms.__name__}.{config.algorithm}")
    rule = algorithm.make(config, schedule, boxed, decayed)
    factors = rate_factors(boxed, config.layer_decay, config.rate_scales, model)
    return optax.chain(clip, rule, _scaled(factors))


def _scaled(factors: ByPath) -> optax.GradientTransformation:
    """Multiplies each update by the factor of its parameter."""
    if all(isinstance(factor, float) and factor == 1.0 for factor in factors.values()):
        return optax.identity()

    def scale(updates: Params, params: Params | None) -> Params:
        return from_paths({path: u * factors[path] for path, u in by_path(updates).items()})

    return optax.stateless(scale)


def decay_mask(boxed: Boxed) -> Params:
    """True for parameters with weight decay: kernels and tables, not scales and biases."""
    return jax.tree_util.tree_map_with_path(lambda path, _: is_matrix(path), boxed, is_leaf=is_box)
