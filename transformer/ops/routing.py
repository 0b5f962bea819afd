"""Mixtures of experts: which experts compute each token, and how even their load is.

A router scores E experts for each token and the best k of them compute it (Shazeer et al. 2017,
section 2.1). Below, S is the number of tokens in a batch, and M = S k the number of pairs of a
token and one of its experts, ordered by token, the best expert first.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


class Routing(NamedTuple):
    """What a router decided.

    Attributes:
        experts: the experts of each token, the best first.
        weights: the weights of the experts' outputs, in float32; they sum to one for each token.
        probabilities: the probabilities of all experts, in float32.
    """

    experts: Int[Array, "S k"]
    weights: Float[Array, "S k"]
    probabilities: Float[Array, "S E"]


class ExpertKernels(NamedTuple):
    """The kernels of E gated feed-forward layers (Shazeer 2020, equation 6).

    Attributes:
        gate: the projection that goes through the activation.
        up: the projection that is multiplied by the gate.
        down: the projection back to the width of the model.
    """

    gate: Float[Array, "E D F"]
    up: Float[Array, "E D F"]
    down: Float[Array, "E F D"]


Activation = Callable[[Array], Array]


def route(logits: Float[Array, "S E"], experts_per_token: int) -> Routing:
    """Chooses the k most probable experts of each token.

    Their weights are a softmax over the k logits (Jiang et al. 2024, section 2.1). The softmax over
    all E, renormalised over the k, is the same. Ties go to the first expert.

    Args:
        logits: the router's logits.
        experts_per_token: k.
    """
    probabilities = jax.nn.softmax(logits.astype(jnp.float32), axis=-1)
    weights, experts = jax.lax.top_k(probabilities, experts_per_token)
    return Routing(experts, weights / jnp.sum(weights, axis=-1, keepdims=True), probabilities)


def dropless_experts(
    x: Float[Array, "S D"], routing: Routing, kernels: ExpertKernels, activation: Activation
) -> Float[Array, "S D"]:
    """Computes every token by all its experts, without a limit on the tokens of an expert.

    The pairs are sorted by expert, and one ragged product computes all experts. TPUs have an
    instruction for it; CPUs compute E products, with zeros for the tokens of other experts.
    """
    experts_per_token = routing.experts.shape[1]
    expert = routing.experts.reshape(-1)
    order = jnp.argsort(expert)  # Stable, so that the order is the same everywhere.
    sizes = jnp.bincount(expert, length=kernels.gate.shape[0]).astype(jnp.int32)
    # No index is read twice, so gradients are never added up in a varying order.
    rows = jnp.repeat(x, experts_per_token, axis=0).at[order].get(unique_indices=True)
    gate = jax.lax.ragged_dot(rows, kernels.gate, sizes)
    hidden = activation(gate) * jax.lax.ragged_dot(rows, kernels.up, sizes)
    outputs = jax.lax.ragged_dot(hidden, kernels.down, sizes)
    back = jnp.argsort(order)
    return _combine(outputs.at[back].get(unique_indices=True), routing)


def experts_with_capacity(
    x: Float[Array, "S D"],
    routing: Routing,
    kernels: ExpertKernels,
    activation: Activation,
    capacity: int,
    place: Callable[[Array], Array] = lambda x: x,
    valid: Bool[Array, "S"] | None = None,
    limit: Int[Array, ""] | None = None,
) -> Float[Array, "S D"]:
    """Experts with a capacity of C tokens each, filled in token order; later tokens are dropped.

    Shapes are fixed, so the products are dense (Lepikhin et al. 2020, section 2.2). The paper
    serves all first choices before any second choice; here a token never loses its slot to a later
    token, so that no word of a text depends on the words after it. Pairs go to their slots by
    index: one-hot masks `[S, E, C]` would grow with the square of S.

    Args:
        x: tokens.
        routing: the routing of the tokens.
        kernels: the experts' kernels.
        activation: the activation of the gates.
        capacity: C; see `expert_capacity`.
        place: sets the sharding of the experts' inputs and outputs, `[E, C, D]`.
        valid: False for padding, which takes no slot.
        limit: how many slots of an expert may be filled, at most C; see `limited_capacity`.

    Returns:
        Outputs, zero for tokens without any slot.
    """
    (num_tokens, width), num_experts = x.shape, kernels.gate.shape[0]
    slots = places(routing.experts, num_experts, capacity, valid, limit)
    copies = jnp.repeat(x, slots.size // num_tokens, axis=0)
    taken = jnp.zeros((num_experts * capacity, width), x.dtype).at[slots].set(copies, mode="drop")
    taken = place(taken.reshape(num_experts, capacity, width))
    gate = jnp.einsum("ecd,edf->ecf", taken, kernels.gate)
    hidden = activation(gate) * jnp.einsum("ecd,edf->ecf", taken, kernels.up)
    outputs = place(jnp.einsum("ecf,efd->ecd", hidden, kernels.down)).reshape(-1, width)
    return _combine(outputs.at[slots].get(mode="fill", fill_value=0), routing)


def places(
    experts: Int[Array, "S k"],
    num_experts: int,
    capacity: int,
    valid: Bool[Array, "S"] | None = None,
    limit: Int[Array, ""] | None = None,
) -> Int[Array, "M"]:
    """The slot of each pair, from 0 to E C - 1, grouped by expert; E C for dropped pairs.

    Arguments as in `experts_with_capacity`.
    """
    expert = experts.reshape(-1)
    chosen = jax.nn.one_hot(expert, num_experts, dtype=jnp.int32)
    if valid is not None:
        chosen = chosen * jnp.repeat(valid, experts.shape[1])[:, None]
    before = jnp.sum((jnp.cumsum(chosen, axis=0) - chosen) * chosen, axis=-1)
    free = before < (capacity if limit is None else limit)
    if valid is not None:
        free &= jnp.repeat(valid, experts.shape[1])
    return jnp.where(free, expert * capacity + before, num_experts * capacity)


def expert_capacity(
    num_tokens: int, num_experts: int, experts_per_token: int, factor: float
) -> int:
    """Slots of an expert: `factor` times its fair share (Fedus et al. 2021, equation 3).

    Rounded up, and at most the number of tokens: no expert gets more pairs than that.
    """
    share = experts_per_token * num_tokens / num_experts
    return min(num_tokens, math.ceil(factor * share))


def limited_capacity(
    valid: Bool[Array, "S"], num_experts: int, experts_per_token: int, factor: float
) -> Int[Array, ""]:
    """The `expert_capacity` of the tokens that are not padding.

    Their number is known only when the program runs, so the capacity is looked up in a table over
    all numbers of tokens: float32 arithmetic in the program would round some of them differently.

    Args:
        valid: False for padding.
        num_experts: as in `expert_capacity`.
        experts_per_token: as in `expert_capacity`.
        factor: as in `expert_capacity`.
    """
    counts = np.arange(valid.shape[0] + 1)
    shares = experts_per_token * counts / num_experts
    capacities = np.minimum(counts, np.ceil(factor * shares)).astype(np.int32)
    return jnp.asarray(capacities)[jnp.sum(valid)]


def balance_loss(routing: Routing, mask: Bool[Array, "S"] | None = None) -> Float[Array, ""]:
    """How unevenly a router spreads tokens: k if evenly, at most E.

    `E sum_e f_e P_e`, where f_e is the fraction of tokens that go to expert e and P_e the mean
    probability of e (Fedus et al. 2021, equations 4 to 6, there with k = 1). Gradients pass through
    P.

    Args:
        routing: the routing of one layer's tokens.
        mask: False for padding, which does not count.
    """
    num_tokens, num_experts = routing.probabilities.shape
    counts = jnp.ones(num_tokens) if mask is None else mask.astype(jnp.float32)
    total = jnp.maximum(jnp.sum(counts), 1.0)
    chosen = jnp.sum(jax.nn.one_hot(routing.experts, num_experts), axis=1)
    share = counts @ chosen / total
    probability = counts @ routing.probabilities / total
    return num_experts * jnp.sum(share * probability)


def router_z_loss(
    logits: Float[Array, "S E"], mask: Bool[Array, "S"] | None = None
) -> Float[Array, ""]:
    """The mean of `log(Z)^2`, which keeps the router's logits small (Zoph et al. 2022, equation 5).

    Args:
        logits: the router's logits.
        mask: False for padding, which does not count.
    """
    squares = jnp.square(jax.nn.logsumexp(logits.astype(jnp.float32), axis=-1))
    counts = jnp.ones_like(squares) if mask is None else mask.astype(jnp.float32)
    return jnp.sum(squares * counts) / jnp.maximum(jnp.sum(counts), 1.0)


def _combine(outputs: Float[Array, "M D"], routing: Routing) -> Float[Array, "S D"]:
    """The weighted sum of each token's experts, added up in float32."""
    pairs = outputs.reshape(*routing.weights.shape, -1)
    return jnp.sum(pairs * routing.weights[..., None], axis=1).astype(outputs.dtype)
