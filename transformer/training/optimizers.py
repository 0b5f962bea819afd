"""Optimizers and learning-rate schedules, from Optax: `config.optimizer`."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int
from optax import contrib

from transformer.checks import require_choice, require_fraction
from transformer.errors import ConfigError
from transformer.sharding import is_box, logical_axes
from transformer.traced import Number, NumberOrOff, is_zero
from transformer.training.selection import by_path, compiled_pattern, from_paths, rate_factors

NAMES = ("adamw", "lion", "muon")
SCHEDULES = ("cosine", "linear", "inverse_square_root", "constant")


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """Fields of `config.optimizer`.

    Attributes:
        algorithm: `adamw` (Loshchilov and Hutter 2019), `lion` (Chen et al. 2023) or `muon`
            (Jordan et al. 2024), which treats everything but matrices with AdamW.
        learning_rate: at the peak.
        schedule: after the warmup: `cosine`, `linear`, `inverse_square_root` or `constant`.
        warmup: how long the learning rate rises from 0; a duration, see `training.durations`.
        final_fraction: of the peak that `cosine` and `linear` end at.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        epsilon: added to the root of the second moment; Lion has none.
        weight_decay: pulls matrices and embeddings to zero; never norms or biases.
        clip_norm: the longest gradient; longer ones are scaled down to it. 0 never clips.
        muon_beta: momentum of Muon; its matrices use `learning_rate`, scaled so that one value
            serves both them and AdamW's parameters.
        layer_decay: multiplies the learning rate once for each layer between a parameter and the
            top; 1 treats all alike. See `training.selection.rate_factors`.
        rate_scales: multiplies the learning rate of some parameters: `PATTERN=FACTOR`, separated by
            commas, such as `output=10,embedding=0.1`.
        frozen: pattern of the parameters that are not trained; see `training.selection`.
    """

    algorithm: str = "adamw"
    learning_rate: Number = 1e-3
    schedule: str = "cosine"
    warmup: str = "100 steps"
    final_fraction: Number = 0.1
    beta1: Number = 0.9
    beta2: Number = 0.95
    epsilon: Number = 1e-8
    weight_decay: Number = 0.1
    clip_norm: NumberOrOff = 1.0
    muon_beta: Number = 0.95
    layer_decay: float = 1.0
    rate_scales: str = ""
    frozen: str = ""

    def check(self) -> None:
        """Refuses values that cannot work.

        Raises:
            ConfigError: naming the field.
        """
        require_choice("optimizer", self, algorithm=NAMES, schedule=SCHEDULES)
        require_fraction("optimizer", self, "beta1", "beta2", "muon_beta")
        if not 0.0 < self.layer_decay <= 1.0:
            raise ConfigError(
                f"config.optimizer.layer_decay is {self.layer_decay}: above 0, 1 at most."
            )
        compiled_pattern(self.frozen, "optimizer.frozen")


def make_schedule(
    config: Optimizer, *, warmup_steps: int | Int[Array, ""], total_steps: int | Int[Array, ""]
) -> optax.Schedule:
    """The learning rate of each step.

    Nothing here branches on a number, so that all of them may be arguments of a program.

    Args:
        config: the optimizer's.
        warmup_steps: the learning rate rises linearly to its peak over this many steps. Step 0
            already moves: the first of n takes 1/n of the peak.
        total_steps: of the run, warmup included.
    """
    peak, fraction = config.learning_rate, config.final_fraction
    warmup, rest = jnp.maximum(warmup_steps, 1), jnp.maximum(total_steps - warmup_steps, 1)

    def schedule(step: Any) -> Any:
        after = jnp.maximum(jnp.asarray(step) - warmup_steps, 0)
        done = jnp.minimum(after / rest, 1.0)
        match config.schedule:
            case "cosine":
                part = fraction + (1.0 - fraction) * 0.5 * (1.0 + jnp.cos(jnp.pi * done))
            case "linear":
                part = fraction + (1.0 - fraction) * (1.0 - done)
            case "inverse_square_root":
                # Continuous with the warmup: sqrt(warmup / step) (Vaswani et al. 2017, eq. 3).
                part = jnp.sqrt(warmup / (warmup + after))
            case _:
                part = jnp.ones_like(done)
        return peak * jnp.where(step < warmup_steps, (step + 1) / warmup, part)

    return schedule


def make_optimizer(
    config: Optimizer, schedule: optax.Schedule, boxed: Any
) -> optax.GradientTransformation:
    """The optimizer.

    Args:
        config: which, and its constants.
        schedule: the learning rate of each step.
        boxed: the trained parameters or their shapes with the logical names of their axes, which
            say what is a matrix even where layers are stacked.
    """
    never = is_zero(config.clip_norm)
    clip = optax.identity() if never else optax.clip_by_global_norm(config.clip_norm)
    decayed = decay_mask(boxed)
    match config.algorithm:
        case "adamw":
            rule = optax.adamw(
                schedule,
                config.beta1,
                config.beta2,
                config.epsilon,
                weight_decay=config.weight_decay,
                mask=decayed,
            )
        case "lion":
            rule = optax.lion(
                schedule,
                config.beta1,
                config.beta2,
                weight_decay=config.weight_decay,
                mask=decayed,
            )
        case _:
            muon = contrib.muon(
                1.0,
                eps=config.epsilon,
                beta=config.muon_beta,
                adam_b1=config.beta1,
                adam_b2=config.beta2,
                muon_weight_dimension_numbers=jax.tree.map(muon_axes, boxed, is_leaf=is_box),
                # Updates as long as AdamW's, so that one learning rate serves all parameters
                # (Liu et al. 2025, section 2.2).
                consistent_rms=0.2,
            )
            # Muon's own mask would not reach the parameters that it leaves to AdamW.
            decay = optax.add_decayed_weights(-config.weight_decay, decayed)
            rule = optax.chain(muon, decay, optax.scale_by_schedule(schedule))
    return optax.chain(
        clip, rule, _scaled(rate_factors(boxed, config.layer_decay, config.rate_scales))
    )


def _scaled(factors: dict[str, Any]) -> optax.GradientTransformation:
    """Multiplies updates, each by the factor of its parameter."""
    if all(isinstance(factor, float) and factor == 1.0 for factor in factors.values()):
        return optax.identity()

    def scale(updates: Any, params: Any) -> Any:
        return from_paths({path: u * factors[path] for path, u in by_path(updates).items()})

    return optax.stateless(scale)


def decay_mask(boxed: Any) -> Any:
    """True where weight decay applies: to kernels and tables, not to scales and biases."""

    def one(path: tuple[Any, ...], leaf: Any) -> bool:
        return path[-1].key in ("kernel", "embedding")

    return jax.tree_util.tree_map_with_path(one, boxed, is_leaf=is_box)


def muon_axes(leaf: Any) -> contrib.MuonDimensionNumbers | None:
    """Which axes of a parameter Muon treats as rows and columns; None leaves it to AdamW.

    Muon is for the matrices inside the blocks, not for embeddings or the output layer (Jordan et
    al. 2024).
    """
    names = logical_axes(leaf)
    own = _own_axes(leaf)
    if len(own) < 2 or "vocab" in names or "positions" in names:
        return None
    rows = [axis for axis in own if names[axis] == "embed"]
    if len(rows) != 1:
        return None
    # A kernel's input axes come first: [embed, heads, head_dim] or [heads, head_dim, embed].
    others = tuple(axis for axis in own if axis not in rows)
    if rows[0] == own[0]:
        return contrib.MuonDimensionNumbers(reduction_axis=tuple(rows), output_axis=others)
    return contrib.MuonDimensionNumbers(reduction_axis=others, output_axis=tuple(rows))


def _own_axes(leaf: Any) -> list[int]:
    """The axes of one layer's parameter."""
    return [axis for axis, name in enumerate(logical_axes(leaf)) if name != "layers"]
