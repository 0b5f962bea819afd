import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import assert_trees_close, normal
from transformer.ops import routing as ops
from transformer.ops.routing import ExpertKernels, Routing, expert_capacity

# Compiled, which takes less time than one operation after the other.
route = jax.jit(ops.route, static_argnums=1)
dropless_experts = jax.jit(ops.dropless_experts, static_argnums=3)
experts_with_capacity = jax.jit(ops.experts_with_capacity, static_argnums=(3, 4))
places = jax.jit(ops.places, static_argnums=(1, 2))
balance_loss, router_z_loss = jax.jit(ops.balance_loss), jax.jit(ops.router_z_loss)

TOKENS, EXPERTS, CHOICES, WIDTH, HIDDEN = 13, 4, 2, 3, 5


@pytest.fixture(scope="module")
def problem():
    """Tokens, a router's logits that prefer the first experts, and kernels."""
    rng = np.random.default_rng(0)
    kernels = ExpertKernels(
        gate=normal(rng, EXPERTS, WIDTH, HIDDEN),
        up=normal(rng, EXPERTS, WIDTH, HIDDEN),
        down=normal(rng, EXPERTS, HIDDEN, WIDTH),
    )
    logits = normal(rng, TOKENS, EXPERTS) + jnp.array([1.0, 0.5, 0.0, -0.5])
    return normal(rng, TOKENS, WIDTH), logits, kernels


def token_by_token(x, logits, kernels, capacity):
    """Outputs, and which pairs found no place: a loop in the words of the papers."""
    kernels = ExpertKernels(*(np.asarray(kernel, np.float64) for kernel in kernels))
    free = dict.fromkeys(range(EXPERTS), capacity)
    outputs, dropped = np.zeros(x.shape), []
    for token, (vector, scores) in enumerate(zip(np.asarray(x), np.asarray(logits), strict=True)):
        chosen = sorted(range(EXPERTS), key=lambda expert: -scores[expert])[:CHOICES]
        weights = np.exp(scores[chosen]) / np.exp(scores[chosen]).sum()
        for expert, weight in zip(chosen, weights, strict=True):
            if not free[expert]:
                dropped.append((token, expert))
                continue
            free[expert] -= 1
            gate, up = vector @ kernels.gate[expert], vector @ kernels.up[expert]
            hidden = gate / (1 + np.exp(-gate)) * up
            outputs[token] += weight * hidden @ kernels.down[expert]
    return outputs, dropped


def test_weights_are_a_softmax_over_the_chosen(problem):
    _, logits, _ = problem
    routing = route(logits, CHOICES)
    for token, scores in enumerate(np.asarray(logits)):
        chosen = np.argsort(-scores)[:CHOICES]
        np.testing.assert_array_equal(routing.experts[token], chosen)
        expected = np.exp(scores[chosen]) / np.exp(scores[chosen]).sum()
        np.testing.assert_allclose(routing.weights[token], expected, rtol=1e-5)
    np.testing.assert_allclose(routing.probabilities, jax.nn.softmax(logits), rtol=1e-6)


def test_routing_is_in_float32_and_takes_the_first_of_equals():
    routing = route(jnp.zeros((2, EXPERTS), jnp.bfloat16), CHOICES)
    assert {routing.weights.dtype, routing.probabilities.dtype} == {jnp.dtype("float32")}
    np.testing.assert_array_equal(routing.experts, [[0, 1], [0, 1]])


def test_dropless_is_token_by_token(problem):
    x, logits, kernels = problem
    found = dropless_experts(x, route(logits, CHOICES), kernels, jax.nn.silu)
    np.testing.assert_allclose(found, token_by_token(x, logits, kernels, TOKENS)[0], atol=1e-5)


def test_experts_without_tokens(problem):
    x, _, kernels = problem
    logits = jnp.tile(jnp.array([0.0, 9.0, -9.0, 1.0]), (TOKENS, 1))
    found = dropless_experts(x, route(logits, CHOICES), kernels, jax.nn.silu)
    np.testing.assert_allclose(found, token_by_token(x, logits, kernels, TOKENS)[0], atol=1e-5)


@pytest.mark.parametrize("capacity", [1, 4, TOKENS])
def test_capacity_drops_what_is_beyond_it(problem, capacity):
    x, logits, kernels = problem
    routing = route(logits, CHOICES)
    expected, dropped = token_by_token(x, logits, kernels, capacity)
    slots = np.asarray(places(routing.experts, EXPERTS, capacity))
    experts = np.asarray(routing.experts).reshape(-1)
    missed = np.flatnonzero(slots == EXPERTS * capacity)
    assert [(pair // CHOICES, experts[pair]) for pair in missed] == dropped
    assert bool(dropped) == (capacity < TOKENS)
    kept = slots[slots < EXPERTS * capacity]
    assert len(set(kept)) == len(kept)
    found = experts_with_capacity(x, routing, kernels, jax.nn.silu, capacity)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_slots_by_hand():
    experts = jnp.array([[0, 1], [0, 2], [0, 1]])
    # Expert 0 has the slots 0 and 1, expert 1 those from 2 on; 6 is none.
    assert places(experts, 3, 2).tolist() == [0, 2, 1, 4, 6, 3]
    valid = jnp.array([True, False, True])
    assert places(experts, 3, 2, valid).tolist() == [0, 2, 6, 6, 1, 3]
    assert places(experts, 3, 2, None, jnp.array(1)).tolist() == [0, 2, 6, 4, 6, 6]


def test_padding_gets_zeros_and_takes_no_slot(problem):
    x, logits, kernels = problem
    routing, valid, shapes = route(logits, CHOICES), np.arange(TOKENS) % 3 > 0, []

    def place(x):
        shapes.append(x.shape)
        return x

    found = ops.experts_with_capacity(
        x, routing, kernels, jax.nn.silu, 5, place, jnp.asarray(valid), jnp.array(3)
    )
    # What experts read and what they write, both on the devices where they are.
    assert shapes == [(EXPERTS, 5, WIDTH)] * 2
    np.testing.assert_array_equal(found[~valid], 0.0)
    expected, _ = token_by_token(x[valid], logits[valid], kernels, 3)
    np.testing.assert_allclose(found[valid], expected, atol=1e-5)


def test_later_tokens_take_no_place_of_earlier_ones(problem):
    x, logits, kernels = problem

    def first_half(logits):
        routing = route(logits, CHOICES)
        return experts_with_capacity(x, routing, kernels, jax.nn.silu, 3)[:6]

    np.testing.assert_array_equal(first_half(logits), first_half(logits.at[6:].set(0.0)))


def test_gradients_of_both_are_the_same(problem):
    def gradients(experts, *args):
        def total(x, logits, kernels):
            output = experts(x, route(logits, CHOICES), kernels, jax.nn.silu, *args)
            return jnp.sum(jnp.sin(output))

        return jax.jit(jax.grad(total, argnums=(0, 1, 2)))(*problem)

    dropless = gradients(dropless_experts)
    assert_trees_close(gradients(experts_with_capacity, TOKENS), dropless, rtol=1e-4, atol=1e-5)
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(dropless))


@pytest.mark.parametrize(
    ("num_tokens", "factor", "capacity"), [(64, 1.0, 16), (64, 1.25, 20), (1, 1.0, 1), (8, 99.0, 8)]
)
def test_capacity_is_a_share(num_tokens, factor, capacity):
    assert expert_capacity(num_tokens, 8, 2, factor) == capacity


@pytest.mark.parametrize("factor", [0.1, 0.7, 1.0, 1.1, 1.25, 2.0])
def test_capacity_of_what_counts_is_that_of_so_many_tokens(factor):
    limited = jax.jit(
        jax.vmap(lambda count: ops.limited_capacity(jnp.arange(80) < count, 8, 2, factor))
    )
    expected = [expert_capacity(count, 8, 2, factor) for count in range(81)]
    np.testing.assert_array_equal(limited(jnp.arange(81)), expected)


def test_balance_loss_by_hand():
    probabilities = jnp.array([[0.7, 0.2, 0.1], [0.6, 0.1, 0.3], [0.1, 0.1, 0.8]])
    routing = Routing(jnp.array([[0, 1], [0, 2], [2, 0]]), jnp.zeros((3, 2)), probabilities)
    # Shares 1, 1/3, 2/3; mean probabilities 1.4/3, 0.4/3, 1.2/3.
    expected = 3 * (1 * 1.4 / 3 + 1 / 3 * 0.4 / 3 + 2 / 3 * 1.2 / 3)
    np.testing.assert_allclose(balance_loss(routing), expected, rtol=1e-6)
    # The first two only: shares 1, 1/2, 1/2; probabilities 0.65, 0.15, 0.2.
    expected = 3 * (0.65 + 0.5 * 0.15 + 0.5 * 0.2)
    mask = jnp.array([True, True, False])
    np.testing.assert_allclose(balance_loss(routing, mask), expected, rtol=1e-6)
    # The second alone: shares 1, 0, 1.
    mask = jnp.array([False, True, False])
    np.testing.assert_allclose(balance_loss(routing, mask), 3 * (0.6 + 0.3), rtol=1e-6)


def test_balance_loss_is_least_where_routing_is_even(problem):
    # Each expert twice first and twice second, all with the same probability.
    experts = jnp.array([[0, 1], [1, 0], [2, 3], [3, 2]])
    even = Routing(experts, jnp.full((4, 2), 0.5), jnp.full((4, 4), 0.25))
    np.testing.assert_allclose(balance_loss(even), CHOICES, rtol=1e-6)
    assert balance_loss(route(problem[1], CHOICES)) > CHOICES
    collapsed = route(jnp.tile(jnp.array([30.0, 20.0, 0.0, 0.0]), (4, 1)), CHOICES)
    np.testing.assert_allclose(balance_loss(collapsed), EXPERTS, rtol=1e-3)


def test_balance_loss_pushes_away_from_the_busy(problem):
    slopes = jax.jit(jax.grad(lambda logits: balance_loss(route(logits, CHOICES))))(problem[1])
    slopes = slopes.sum(axis=0)
    busy = np.bincount(np.asarray(route(problem[1], CHOICES).experts).reshape(-1))
    assert slopes[np.argmax(busy)] > 0 > slopes[np.argmin(busy)]


def test_router_z_loss_by_hand():
    logits = jnp.log(jnp.array([[1.0, 2.0], [4.0, 4.0]]))
    expected = (np.log(3.0) ** 2 + np.log(8.0) ** 2) / 2
    np.testing.assert_allclose(router_z_loss(logits), expected, rtol=1e-6)
    masked = router_z_loss(logits, jnp.array([False, True]))
    np.testing.assert_allclose(masked, np.log(8.0) ** 2, rtol=1e-6)


def test_padding_alone_costs_nothing():
    routing, nothing = route(jnp.zeros((2, EXPERTS)), CHOICES), jnp.zeros(2, bool)
    assert balance_loss(routing, nothing) == 0
    assert router_z_loss(jnp.ones((2, EXPERTS)), nothing) == 0
