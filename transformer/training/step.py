"""The training step: gradient, update, metrics. A pure function, compiled once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from transformer.tasks.parts.protocol import Losses
from transformer.traced import Number
from transformer.training.selection import Chooser, everything, join, split
from transformer.training.state import TrainState

LossFunction = Callable[[Any, Any, dict[str, Array]], Losses]


def make_train_step(
    loss: LossFunction,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    *,
    microbatches: int = 1,
    ema_decay: Number = 0.0,
    trained: Chooser = everything,
) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, Array]]]:
    """One step of training.

    Args:
        loss: of parameters, batch and keys.
        optimizer: makes updates from gradients.
        schedule: the learning rate, to be logged.
        microbatches: parts of the batch whose gradients are added up before the update. Sums are
            divided once, by the weight of the whole batch, so the result is the whole batch's.
        ema_decay: of the average of the parameters; 0 for none.
        trained: which parameters have gradients; the others stay as they are.

    Returns:
        A function of state and batch to the new state and scalars: the task's metrics,
        `grad_norm` before clipping, `update_norm`, `learning_rate`, and in `group_norms` the
        gradient norm of each parameter group (`parameter_groups`).
    """

    def summed_gradients(params: Any, kept: Any, batch: Any, key: Array) -> tuple[Losses, Any]:
        def objective(params: Any, batch: Any, key: Array) -> tuple[Array, Losses]:
            losses = loss(join(params, kept), batch, {"dropout": key})
            return losses.objective, losses

        gradient = jax.grad(objective, has_aux=True)
        if microbatches == 1:
            gradients, losses = gradient(params, batch, key)
            return losses, gradients
        parts = jax.tree.map(lambda x: x.reshape(microbatches, -1, *x.shape[1:]), batch)

        def add(total: Any, part: tuple) -> tuple[Any, None]:
            index, batch_part = part
            gradients, losses = gradient(params, batch_part, jax.random.fold_in(key, index))
            return jax.tree.map(jnp.add, total, (losses, gradients)), None

        first = jax.tree.map(lambda x: x[0], parts)
        shapes = jax.eval_shape(gradient, params, first, key)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (shapes[1], shapes[0]))
        total, _ = jax.lax.scan(add, zeros, (jnp.arange(microbatches), parts))
        return total

    def train_step(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Array]]:
        key = jax.random.fold_in(state.key, state.step)
        moving, kept = split(state.params, trained)
        losses, gradients = summed_gradients(moving, kept, batch, key)
        weight = jnp.maximum(losses.weight, 1.0)
        gradients = jax.tree.map(lambda g: g / weight, gradients)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, moving)
        moved = optax.apply_updates(moving, updates)
        params = join(moved, kept)
        average = state.average
        if average is not None:
            # What does not move keeps its bits in the average too.
            old, still = split(average, trained)
            average = join(optax.incremental_update(moved, old, 1.0 - ema_decay), still)
        group_norms = jnp.stack(
            [optax.tree.norm(group) for group in parameter_groups(gradients).values()]
        )
        metrics = losses.means() | {
            "grad_norm": jnp.sqrt(jnp.sum(jnp.square(group_norms))),
            "update_norm": optax.tree.norm(updates),
            "learning_rate": jnp.asarray(schedule(state.step), jnp.float32),
            "group_norms": group_norms,
        }
        new_state = TrainState(state.step + 1, params, optimizer_state, average, state.key)
        return new_state, metrics

    return train_step


def repeat(
    step: Callable[[TrainState, Any], tuple[TrainState, dict[str, Array]]], most: int
) -> Callable[[TrainState, Any, Int[Array, ""]], tuple[TrainState, dict[str, Array]]]:
    """Several steps in one call.

    The number of steps is an argument of the compiled program, not a constant of it: any division
    of a run into calls executes the same instructions and gives the same bits.

    Args:
        step: one step.
        most: the most steps in one call.

    Returns:
        A function of state, batches (`[most, ...]`, those beyond `count` ignored) and `count` to
        the new state and metrics `[most, ...]`.
    """

    def steps(
        state: TrainState, batches: Any, count: Int[Array, ""]
    ) -> tuple[TrainState, dict[str, Array]]:
        def one(index: Array, carry: tuple) -> tuple:
            state, metrics = carry
            batch = jax.tree.map(lambda x: x[index], batches)
            state, new = step(state, batch)
            metrics = jax.tree.map(lambda all_, one: all_.at[index].set(one), metrics, new)
            return state, metrics

        batch = jax.tree.map(lambda x: x[0], batches)
        _, shapes = jax.eval_shape(step, state, batch)
        metrics = jax.tree.map(lambda x: jnp.zeros((most, *x.shape), x.dtype), shapes)
        return jax.lax.fori_loop(0, count, one, (state, metrics))

    return steps


def make_evaluation_step(loss: LossFunction) -> Callable[[Any, Any], Losses]:
    """Sums of a validation batch, nothing dropped."""

    def evaluation_step(params: Any, batch: Any) -> Losses:
        return loss(params, batch, {})

    return evaluation_step


def parameter_groups(params: Any) -> dict[str, Any]:
    """Parameters by module: each embedding, norm and output layer, and each layer of the stack.

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


def mean_metrics(totals: list[Losses]) -> dict[str, Float[Array, ""]]:
    """The metrics of several batches together, each prediction counted once."""
    return jax.tree.map(lambda *parts: sum(parts), *totals).means()
