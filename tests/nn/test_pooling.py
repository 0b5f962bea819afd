import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import noisy_parameters, normal
from transformer.nn.attention import Attention
from transformer.nn.feed_forward import FeedForward
from transformer.nn.norms import LayerNorm
from transformer.nn.pooling import AttentionPooling

B, T, D, N, H = 2, 5, 6, 2, 3
POOLING = AttentionPooling(
    attention=functools.partial(Attention, num_heads=N),
    feed_forward=functools.partial(FeedForward, width=7, activation="relu"),
    norm=functools.partial(LayerNorm, epsilon=1e-6),
)


@pytest.fixture(scope="module")
def x():
    return normal(np.random.default_rng(0), B, T, D)


@pytest.fixture(scope="module")
def params(x):
    return noisy_parameters(POOLING, x)


@jax.jit
def pooled(params, x):
    return POOLING.apply({"params": params}, x)


def by_hand(params, tokens):
    """The vector of one example of tokens, in plain NumPy."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    attention, feed_forward = params["attention"], params["feed_forward"]
    found = attention["output"]["bias"].copy()
    for head in range(N):

        def project(name, vectors, head=head):
            layer = attention[name]
            return vectors @ layer["kernel"][:, head] + layer["bias"][head]

        query = project("query", params["query"][0])
        logits = project("key", tokens) @ query / math.sqrt(H)
        weights = np.exp(logits) / np.exp(logits).sum()
        found += weights @ project("value", tokens) @ attention["output"]["kernel"][head]
    normed = (found - found.mean()) / np.sqrt(found.var() + 1e-6)
    norm = params["feed_forward_norm"]
    normed = normed * norm["scale"] + norm["bias"]
    up, down = feed_forward["up"], feed_forward["down"]
    hidden = np.maximum(normed @ up["kernel"] + up["bias"], 0.0)
    return found + hidden @ down["kernel"] + down["bias"]


def test_pooling_by_hand(params, x):
    output = pooled(params, x)
    assert output.shape == (B, D)
    for tokens, vector in zip(np.asarray(x, np.float64), output, strict=True):
        np.testing.assert_allclose(vector, by_hand(params, tokens), atol=1e-5)


def test_the_order_of_tokens_does_not_matter(params, x):
    order = np.random.default_rng(1).permutation(T)
    np.testing.assert_allclose(pooled(params, x[:, order]), pooled(params, x), atol=1e-5)


def test_every_token_matters_to_its_own_example(params, x):
    for place in range(T):
        changed = pooled(params, x.at[0, place].add(1.0)) - pooled(params, x)
        assert np.abs(changed[0]).max() > 1e-3
        np.testing.assert_array_equal(changed[1], 0.0)


def test_one_query_whatever_the_number_of_tokens(params, x):
    assert params["query"].shape == (1, D)
    # Of equal tokens there may be any number.
    one = jnp.broadcast_to(x[:, :1], (B, T, D))
    np.testing.assert_allclose(pooled(params, one), pooled(params, x[:, :1]), atol=1e-5)
