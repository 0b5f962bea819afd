"""Cross-entropy over a vocabulary, whole or in chunks."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from transformer.ops.activations import soft_cap
from transformer.traced import Number, is_zero

# Positions with this label do not count; the value is PyTorch's.
IGNORED = -100


class TokenLosses(NamedTuple):
    """Per-position results, zero at ignored positions.

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


class _SoFar(NamedTuple):
    """What `chunked_cross_entropy` keeps of the chunks that it has visited, for each position.

    Attributes:
        maximum: the highest logit.
        total: the sum of `exp(logit - maximum)`.
        label_logit: the logit of the label, if it was visited.
        logit_sum: the sum of all logits.
        guess: the token with the highest logit.
    """

    maximum: Float[Array, "P"]
    total: Float[Array, "P"]
    label_logit: Float[Array, "P"]
    logit_sum: Float[Array, "P"]
    guess: Int[Array, "P"]


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
    label_logit = jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
    mean_logit = None if is_zero(label_smoothing) else jnp.mean(logits, axis=-1)
    # Ties go to the first token. This takes half the time of `argmax` on CPUs.
    equals = logits >= maximum[..., None]
    earlier = jnp.any(equals & (jnp.arange(logits.shape[-1]) < target[..., None]), axis=-1)
    correct = (label_logit >= maximum) & ~earlier
    return _assemble(
        labels, log_normalizer, label_logit, mean_logit, correct, label_smoothing, z_loss
    )


def chunked_cross_entropy(
    features: Float[Array, "... D"],
    kernel: Float[Array, "D V"],
    labels: Int[Array, "..."],
    bias: Float[Array, "V"] | None = None,
    *,
    chunk_size: int,
    logit_cap: float | None = None,
    label_smoothing: Number = 0.0,
    z_loss: Number = 0.0,
) -> TokenLosses:
    """`cross_entropy(features @ kernel + bias, labels)` without ever holding all logits.

    The vocabulary is visited in chunks of `chunk_size` with a running log-sum-exp; the backward
    pass recomputes each chunk's logits. Temporary memory is that of one chunk, however large V is.

    Args:
        features: the last hidden states.
        kernel: the output layer.
        labels: token ids, or `IGNORED`.
        bias: of the output layer.
        chunk_size: how many tokens of the vocabulary to score at a time.
        logit_cap: squashes logits to `(-cap, cap)` with a tanh.
        label_smoothing: as in `cross_entropy`.
        z_loss: as in `cross_entropy`.
    """
    width, vocab_size = kernel.shape
    flat = features.reshape(-1, width)
    target = jnp.maximum(labels, 0).reshape(-1)
    chunks = _chunks(kernel, jnp.zeros(vocab_size) if bias is None else bias, chunk_size)

    @jax.checkpoint
    def visit(
        so_far: _SoFar, chunk: tuple[Float[Array, "D v"], Float[Array, "v"], Int[Array, ""]]
    ) -> tuple[_SoFar, None]:
        chunk_kernel, chunk_bias, start = chunk
        logits = (flat @ chunk_kernel).astype(jnp.float32) + chunk_bias
        if logit_cap is not None:
            logits = soft_cap(logits, logit_cap)
        return _with_chunk(so_far, logits, target, start, vocab_size), None

    zeros = jnp.zeros(flat.shape[0], jnp.float32)
    first = _SoFar(zeros - jnp.inf, zeros, zeros, zeros, jnp.full(flat.shape[0], -1))
    (maximum, total, label_logit, logit_sum, guess), _ = lax.scan(visit, first, chunks)

    def shape(flat_values: Array) -> Array:
        return flat_values.reshape(labels.shape)

    return _assemble(
        labels,
        shape(maximum + jnp.log(total)),
        shape(label_logit),
        shape(logit_sum / vocab_size),
        shape((guess == target) & (label_logit >= maximum)),
        label_smoothing,
        z_loss,
    )


def _chunks(
    kernel: Float[Array, "D V"], bias: Float[Array, "V"], size: int
) -> tuple[Float[Array, "C D v"], Float[Array, "C v"], Int[Array, "C"]]:
    """Kernels and biases of C chunks, padded with zeros, and the first token of each chunk."""
    width, vocab_size = kernel.shape
    count = -(-vocab_size // size)
    padding = count * size - vocab_size
    kernels = jnp.pad(kernel, ((0, 0), (0, padding))).reshape(width, count, size)
    biases = jnp.pad(bias, (0, padding)).reshape(count, size)
    return kernels.swapaxes(0, 1), biases, jnp.arange(count) * size


def _with_chunk(
    so_far: _SoFar,
    logits: Float[Array, "P v"],
    target: Int[Array, "P"],
    start: Int[Array, ""],
    vocab_size: int,
) -> _SoFar:
    """Adds a chunk that begins with the token `start`; tokens from `vocab_size` on are padding."""
    maximum, total, label_logit, logit_sum, guess = so_far
    chunk_size = logits.shape[1]
    real = start + jnp.arange(chunk_size) < vocab_size
    logit_sum = logit_sum + jnp.sum(jnp.where(real, logits, 0.0), axis=-1)
    logits = jnp.where(real, logits, -jnp.inf)
    highest = lax.stop_gradient(jnp.max(logits, axis=-1))
    guess = jnp.where(highest > maximum, start + jnp.argmax(logits, axis=-1), guess)
    higher = jnp.maximum(maximum, highest)
    total = total * jnp.exp(maximum - higher)
    total = total + jnp.sum(jnp.exp(logits - higher[:, None]), axis=-1)
    inside = (target >= start) & (target < start + chunk_size)
    place = jnp.clip(target - start, 0, chunk_size - 1)
    here = jnp.take_along_axis(logits, place[:, None], axis=-1)[:, 0]
    label_logit = jnp.where(inside, here, label_logit)
    return _SoFar(higher, total, label_logit, logit_sum, guess)


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
