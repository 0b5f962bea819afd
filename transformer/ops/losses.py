"""Cross-entropy over a vocabulary: of logits, or of an output layer in chunks of positions."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from transformer.ops.activations import soft_cap
from transformer.ops.dense import dense, dense_by_rows
from transformer.traced import Number, is_zero

# Positions with this label do not count; the value is PyTorch's.
IGNORED = -100


class TokenLosses(NamedTuple):
    """Results of each position, zero at ignored ones, or their sums.

    Attributes:
        objective: the loss to minimise, smoothing and z-loss included, in nats.
        nll: the plain negative log likelihood, in nats.
        correct: 1 where the label is the most probable token; ties go to the first, as in `argmax`.
        weight: 1 where the position counts.
    """

    objective: Float[Array, "..."]
    nll: Float[Array, "..."]
    correct: Float[Array, "..."]
    weight: Float[Array, "..."]


def cross_entropy(
    logits: Float[Array, "... V"],
    labels: Int[Array, "..."],
    *,
    label_smoothing: Number = 0.0,
    z_loss: Number = 0.0,
) -> TokenLosses:
    """Cross-entropy of each position, in float32.

    Args:
        logits: unnormalised scores.
        labels: token ids, or `IGNORED`.
        label_smoothing: mass spread evenly over the vocabulary (Szegedy et al. 2016, section 7).
        z_loss: weight of `log(Z)^2`, which keeps logits from drifting (Chowdhery et al. 2022,
            section 5).
    """
    logits = logits.astype(jnp.float32)
    target = jnp.maximum(labels, 0)
    # The maximum only guards against overflow: its gradient cancels.
    maximum = lax.stop_gradient(jnp.max(logits, axis=-1))
    log_normalizer = maximum + jnp.log(jnp.sum(jnp.exp(logits - maximum[..., None]), axis=-1))
    label_logit = _taken(logits, target)
    mean_logit = None if is_zero(label_smoothing) else jnp.mean(logits, axis=-1)
    # Ties go to the first token. This takes half the time of `argmax` on CPUs.
    equals = logits >= maximum[..., None]
    earlier = jnp.any(equals & (jnp.arange(logits.shape[-1]) < target[..., None]), axis=-1)
    correct = (label_logit >= maximum) & ~earlier
    return _assemble(
        labels, log_normalizer, label_logit, mean_logit, correct, label_smoothing, z_loss
    )


@jax.custom_vjp
def _taken(logits: Float[Array, "... V"], ids: Int[Array, "..."]) -> Float[Array, "..."]:
    """The logit of one token at each position.

    The gradient that JAX takes of indexing is a scatter, before which a GPU writes out the gradient
    of all logits in float32. A comparison is one more term of it.
    """
    return jnp.take_along_axis(logits, ids[..., None], axis=-1)[..., 0]


def _taken_forward(logits: Array, ids: Array) -> tuple[Array, tuple[Array, Array]]:
    # An empty array knows V.
    return _taken(logits, ids), (jnp.zeros((0, logits.shape[-1]), logits.dtype), ids)


def _taken_backward(kept: tuple[Array, Array], gradient: Array) -> tuple[Array, None]:
    like, ids = kept
    columns = jnp.arange(like.shape[-1]) == ids[..., None]
    return jnp.where(columns, gradient[..., None], 0.0).astype(like.dtype), None


_taken.defvjp(_taken_forward, _taken_backward)


def summed(losses: TokenLosses) -> TokenLosses:
    """The sums over all positions."""
    return TokenLosses(*map(jnp.sum, losses))


class _Layer(NamedTuple):
    """What is learned in `linear_cross_entropy` besides the features; see there."""

    kernel: Float[Array, "D columns"] | Float[Array, "columns D"]
    bias: Float[Array, "V"] | None


class _Plan(NamedTuple):
    """What is constant in `linear_cross_entropy`.

    Attributes:
        logit_cap: of the output layer.
        shard_axes: how many axes of chunks, after the first, are those of shards.
        is_table: whether the kernel has a row for each token.
        vocab_size: V; the kernel may have further columns.
        terms: constant arguments of `cross_entropy`, by name.
    """

    logit_cap: float | None
    shard_axes: int
    is_table: bool
    vocab_size: int
    terms: tuple[tuple[str, float], ...]


def linear_cross_entropy(
    features: Float[Array, "B T D"],
    kernel: Float[Array, "D columns"] | Float[Array, "columns D"],
    labels: Int[Array, "B T"],
    bias: Float[Array, "V"] | None = None,
    *,
    is_table: bool = False,
    num_chunks: int,
    num_shards: int = 1,
    num_position_shards: int = 1,
    vocab_size: int | None = None,
    logit_cap: float | None = None,
    label_smoothing: Number = 0.0,
    z_loss: Number = 0.0,
) -> TokenLosses:
    """The sums of `cross_entropy(features @ kernel + bias, labels)`; never holds all logits.

    Positions are visited in chunks. Where a gradient is wanted, that of a chunk is computed while
    its logits are there, in the forward pass, so that no logits are kept or computed twice (Hsu et
    al. 2024, Liger Kernel, section 3.2). Temporary memory is that of one chunk and of the kernel's
    gradient.

    Only `objective` has a gradient, and only for `features`, `kernel` and `bias`.

    Args:
        features: the last hidden states.
        kernel: the output layer; columns after the first `vocab_size` stand for no token.
        labels: token ids, or `IGNORED`.
        bias: of the output layer.
        is_table: whether the kernel is a table with a row for each token, as an embedding has. Its
            gradient has this form from the beginning, so that nothing is turned.
        num_chunks: into how many parts each example is cut, at most T.
        num_shards: devices over which the examples are sharded. Gradients of the kernel are added
            on each device and between devices once, after the last chunk.
        num_position_shards: devices over which the positions of each example are sharded; likewise.
        vocab_size: V; None means that every column of the kernel stands for a token.
        logit_cap: squashes logits to `(-cap, cap)` with a tanh.
        label_smoothing: as in `cross_entropy`.
        z_loss: as in `cross_entropy`.
    """
    rows, length = labels.shape
    shards = (
        num_shards if rows % num_shards == 0 else 1,
        num_position_shards if length % num_position_shards == 0 else 1,
    )
    terms = {"label_smoothing": label_smoothing, "z_loss": z_loss}
    # Constants stay constants, as zeros leave out a part of the program.
    constant = {name: term for name, term in terms.items() if isinstance(term, int | float)}
    vocab_size = kernel.shape[0 if is_table else 1] if vocab_size is None else vocab_size
    shard_axes = sum(count > 1 for count in shards)
    plan = _Plan(logit_cap, shard_axes, is_table, vocab_size, tuple(constant.items()))
    losses = _visited(
        plan,
        _chunks(features, 0, num_chunks, shards),
        _chunks(labels, IGNORED, num_chunks, shards),
        _Layer(kernel, bias),
        {name: term for name, term in terms.items() if name not in constant},
    )
    return TokenLosses(losses.objective, *map(lax.stop_gradient, losses[1:]))


def _chunks(x: Array, filler: int, count: int, shards: tuple[int, int]) -> Array:
    """`[B, T, ...]` as `[C, B, t, ...]`, with an axis for shards after C, if there are several.

    Positions of a chunk lie `count` apart, so that T may be sharded.

    Args:
        x: one entry for each position.
        filler: fills up the last positions of a chunk.
        count: C.
        shards: into how many B and T are cut; each number above 1 makes an axis.
    """
    rows, length, *rest = x.shape
    of_rows, of_positions = shards
    length //= of_positions
    count = min(count, length)
    x = x.reshape(of_rows, rows // of_rows, of_positions, length, *rest)
    x = jnp.pad(
        x, [(0, 0)] * 3 + [(0, -length % count)] + [(0, 0)] * len(rest), constant_values=filler
    )
    x = x.reshape(*x.shape[:3], -1, count, *rest)
    x = jnp.moveaxis(x, (4, 0, 2), (0, 1, 2))
    return x.squeeze([axis for axis, cut in enumerate(shards, 1) if cut == 1])


def _of_chunk(
    plan: _Plan,
    features: Float[Array, "*P D"],
    layer: _Layer,
    labels: Int[Array, "*P"],
    numbers: dict[str, Float[Array, ""]],
) -> tuple[Float[Array, ""], TokenLosses]:
    """The objective of a chunk, and all its sums."""
    product = dense_by_rows if plan.is_table else dense
    logits = product(features, layer.kernel)[..., : plan.vocab_size].astype(jnp.float32)
    if layer.bias is not None:
        logits = logits + layer.bias
    if plan.logit_cap is not None:
        logits = soft_cap(logits, plan.logit_cap)
    losses = summed(cross_entropy(logits, labels, **dict(plan.terms), **numbers))
    return losses.objective, losses


def _nothing() -> TokenLosses:
    return TokenLosses(*[jnp.zeros(())] * len(TokenLosses._fields))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _visited(
    plan: _Plan,
    features: Float[Array, "C *P D"],
    labels: Int[Array, "C *P"],
    layer: _Layer,
    numbers: dict[str, Float[Array, ""]],
) -> TokenLosses:
    """The sums over all chunks.

    Args:
        plan: what is constant.
        features: of chunks of positions.
        labels: of the same.
        layer: the output layer.
        numbers: the other arguments of `cross_entropy`, by name.
    """

    def visit(so_far: TokenLosses, chunk: tuple[Array, Array]) -> tuple[TokenLosses, None]:
        _, losses = _of_chunk(plan, chunk[0], layer, chunk[1], numbers)
        return jax.tree.map(jnp.add, so_far, losses), None

    return lax.scan(visit, _nothing(), (features, labels))[0]


def _visited_with_gradients(
    plan: _Plan,
    features: Float[Array, "C *P D"],
    labels: Int[Array, "C *P"],
    layer: _Layer,
    numbers: dict[str, Float[Array, ""]],
) -> tuple[TokenLosses, tuple[Float[Array, "C *P D"], _Layer]]:
    """The sums, and the gradients of the objective for the features and the output layer."""
    gradient = jax.grad(functools.partial(_of_chunk, plan), argnums=(0, 1), has_aux=True)
    for _ in range(plan.shard_axes):
        gradient = jax.vmap(gradient, in_axes=(0, None, 0, None))

    def visit(so_far: tuple, chunk: tuple[Array, Array]) -> tuple[tuple, Array]:
        (of_features, of_layer), losses = gradient(chunk[0], layer, chunk[1], numbers)
        return jax.tree.map(jnp.add, so_far, (losses, of_layer)), of_features

    shards = features.shape[1 : 1 + plan.shard_axes]
    zeros = jax.tree.map(lambda x: jnp.zeros(shards + x.shape), (_nothing(), layer))
    found, of_features = lax.scan(visit, zeros, (features, labels))
    axes = tuple(range(plan.shard_axes))
    losses, of_layer = jax.tree.map(lambda x: x.sum(axes), found) if axes else found
    of_layer = jax.tree.map(lambda x, like: x.astype(like.dtype), of_layer, layer)
    return losses, (of_features, of_layer)


def _scaled(
    plan: _Plan, gradients: tuple[Float[Array, "C *P D"], _Layer], cotangents: TokenLosses
) -> tuple[Float[Array, "C *P D"], None, _Layer, None]:
    """The gradients times that of the objective; labels and numbers have none."""
    scaled = jax.tree.map(lambda x: x * cotangents.objective.astype(x.dtype), gradients)
    return scaled[0], None, scaled[1], None


_visited.defvjp(_visited_with_gradients, _scaled)


def _assemble(
    labels, log_normalizer, label_logit, mean_logit, correct, label_smoothing, z_loss
) -> TokenLosses:
    weight = (labels != IGNORED).astype(jnp.float32)
    nll = log_normalizer - label_logit
    objective = nll
    if not is_zero(label_smoothing):
        smooth = log_normalizer - mean_logit
        objective = (1.0 - label_smoothing) * nll + label_smoothing * smooth
    if not is_zero(z_loss):
        objective = objective + z_loss * jnp.square(log_normalizer)
    return TokenLosses(objective * weight, nll * weight, correct * weight, weight)


def binary_cross_entropy(
    logits: Float[Array, "..."], truth: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Cross-entropy of "yes" and "no" for each entry, in nats.

    Args:
        logits: the log odds of "yes".
        truth: the probability of "yes", from 0 to 1.
    """
    logits = logits.astype(jnp.float32)
    return jax.nn.softplus(logits) - truth * logits
