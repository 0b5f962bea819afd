"""The training step: gradients, update, metrics. Pure functions, compiled by their caller."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from transformer.ops.platforms import platform
from transformer.ops.threefry import without_loop
from transformer.tasks.parts.protocol import Losses
from transformer.traced import Number
from transformer.training.precision import narrowed, rounded_like, widened
from transformer.training.selection import Chooser, everything, join, split
from transformer.training.state import TrainState
from transformer.types import Batch, Metrics, Params

# Takes parameters, a batch and random keys by purpose; without keys there is no dropout.
LossFunction = Callable[[Params, Batch, dict[str, Array]], Losses]
# How many steps to take; an argument of the compiled programs.
Count = Int[Array, ""] | int
# Folded into the key of a step for what its update rounds; microbatches fold in 0, 1, 2, ...
_ROUNDING = 2**32 - 1


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a step needs besides the state and the batch.

    Attributes:
        loss: the loss to minimise.
        optimizer: turns gradients into updates.
        schedule: the learning rate of each step, for logging.
        microbatches: number of parts of the batch whose gradients are added before the update. Sums
            are divided once, by the weight of the whole batch, so the result is the whole batch's.
        ema_decay: decay of the average of the parameters, if the state has one.
        trained: which parameters have gradients; the others stay as they are.
        cast: dtype to which the matrices of a step are converted once, before its microbatches;
            None leaves that to each module that uses one.
    """

    loss: LossFunction
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    microbatches: int = 1
    ema_decay: Number = 0.0
    trained: Chooser = everything
    cast: str | None = None


def train_step(recipe: Recipe, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    """One step of training.

    Returns:
        The new state and scalars: the task's metrics, `grad_norm` before clipping, `update_norm`,
        `learning_rate`, and in `group_norms` the gradient norm of each parameter group
        (`parameter_groups`).
    """
    key = jax.random.fold_in(without_loop(state.key), state.step)
    moving, kept = split(state.params, recipe.trained)

    used = (moving, kept)
    if recipe.cast is not None:
        used = narrowed(used, recipe.cast)
    losses, gradients = summed_gradients(recipe, *used, batch, key)
    weight = jnp.maximum(losses.weight, 1.0)
    gradients = jax.tree.map(lambda g: g / weight, gradients)

    # Computed in float32, whatever is kept.
    before, moments = widened((moving, state.optimizer))
    updates, moments = recipe.optimizer.update(gradients, moments, before)
    moved = optax.apply_updates(before, updates)
    stored, optimizer_state = rounded_like(
        (moved, moments), (moving, state.optimizer), jax.random.fold_in(key, _ROUNDING)
    )
    params = join(stored, kept)

    average = state.average
    if average is not None:
        # Frozen parameters keep their exact bits in the average, too.
        old, still = split(average, recipe.trained)
        average = join(optax.incremental_update(moved, old, 1.0 - recipe.ema_decay), still)

    groups = parameter_groups(gradients).values()
    group_norms = jnp.stack([optax.tree.norm(group) for group in groups])
    metrics = losses.means() | {
        "grad_norm": jnp.sqrt(jnp.sum(jnp.square(group_norms))),
        "update_norm": optax.tree.norm(updates),
        "learning_rate": jnp.asarray(recipe.schedule(state.step), jnp.float32),
        "group_norms": group_norms,
    }
    return TrainState(state.step + 1, params, optimizer_state, average, state.key), metrics


def train_steps(
    recipe: Recipe, state: TrainState, batches: Batch, count: Count
) -> tuple[TrainState, Metrics]:
    """Several training steps in one call.

    The number of steps is an argument of the compiled program, not a constant: however a run is
    divided into calls, it executes the same instructions and gives the same bits. Only a GPU that
    gets single steps has a program without a loop: its host waits for the condition of a loop, and
    prepares the next step only then.

    Args:
        recipe: the recipe of each step.
        state: the state before the first step.
        batches: `[limit, B, ...]`; those beyond `count` are ignored.
        count: how many steps to take, at least one.

    Returns:
        The new state and metrics `[limit, ...]`.
    """
    limit = jax.tree.leaves(batches)[0].shape[0]
    first = jax.tree.map(lambda x: x[0], batches)
    if limit == 1 and platform() == "gpu":
        state, metrics = train_step(recipe, state, first)
        return state, jax.tree.map(lambda x: x[None], metrics)
    # What is jitted is traced once, for the shapes of the metrics and for the loop.
    step = jax.jit(functools.partial(train_step, recipe), inline=True)
    _, shapes = jax.eval_shape(step, state, first)
    metrics = jax.tree.map(lambda x: jnp.zeros((limit, *x.shape), x.dtype), shapes)

    def body(index: Array, carry: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
        state, metrics = carry
        state, new = step(state, jax.tree.map(lambda x: x[index], batches))
        return state, jax.tree.map(lambda rows, row: rows.at[index].set(row), metrics, new)

    return jax.lax.fori_loop(0, count, body, (state, metrics))


def summed_gradients(
    recipe: Recipe, moving: Params, kept: Params, batch: Batch, key: Array
) -> tuple[Losses, Params]:
    """The losses of a batch and their gradients, summed over its microbatches.

    Args:
        recipe: the recipe of the step.
        moving: the parameters that have gradients.
        kept: the other parameters.
        batch: `[B, ...]`; the number of microbatches divides B.
        key: the random key of this step.
    """
    gradient = jax.grad(functools.partial(_objective, recipe.loss, kept), has_aux=True)
    if recipe.microbatches == 1:
        gradients, losses = gradient(moving, batch, key)
        return losses, gradients
    parts = jax.tree.map(lambda x: x.reshape(recipe.microbatches, -1, *x.shape[1:]), batch)

    def add(total: tuple[Losses, Params], part: tuple[Array, Batch]) -> tuple[tuple, None]:
        index, batch_part = part
        gradients, losses = gradient(moving, batch_part, jax.random.fold_in(key, index))
        return jax.tree.map(jnp.add, total, (losses, gradients)), None

    first = jax.tree.map(lambda x: x[0], parts)
    shapes = jax.eval_shape(gradient, moving, first, key)
    # Gradients of bfloat16 parameters are bfloat16, and their sums float32.
    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, jnp.promote_types(x.dtype, jnp.float32)),
        (shapes[1], shapes[0]),
    )
    total, _ = jax.lax.scan(add, zeros, (jnp.arange(recipe.microbatches), parts))
    return total


def _objective(
    loss: LossFunction, kept: Params, moving: Params, batch: Batch, key: Array
) -> tuple[Float[Array, ""], Losses]:
    losses = loss(join(moving, kept), batch, {"dropout": key})
    return losses.objective, losses


def parameter_groups(params: Params) -> Params:
    """Groups parameters by module: each embedding, norm and output layer, each layer of a stack.

    Scanned layers are one group.
    """
    groups = {}
    for name, value in params.items():
        nested = isinstance(value, dict) and all(isinstance(v, dict) for v in value.values())
        if nested:
            groups |= {f"{name}/{inner}": group for inner, group in value.items()}
        else:
            groups[name] = value
    return groups


def mean_metrics(totals: list[Losses]) -> Metrics:
    """The metrics of several batches together; every prediction has equal weight."""
    return jax.tree.map(lambda *parts: sum(parts), *totals).means()
