import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer.nn.dropout import Dropout, StochasticDepth

X = jnp.ones((100, 100))
RNGS = {"dropout": jax.random.key(0)}


def test_off_without_a_key():
    np.testing.assert_array_equal(Dropout(0.5).apply({}, X), X)


def test_on_with_a_key():
    output = Dropout(0.25).apply({}, X, rngs=RNGS)
    kept = output > 0
    np.testing.assert_allclose(output[kept], 1 / 0.75)
    assert abs(kept.mean() - 0.75) < 0.02


def test_rate_zero_is_the_identity():
    np.testing.assert_array_equal(Dropout(0.0).apply({}, X, rngs=RNGS), X)


def test_keys_decide():
    once, again = (Dropout(0.5).apply({}, X, rngs=RNGS) for _ in range(2))
    other = Dropout(0.5).apply({}, X, rngs={"dropout": jax.random.key(1)})
    np.testing.assert_array_equal(once, again)
    assert (once != other).any()


def test_dtype_is_kept():
    assert Dropout(0.5).apply({}, X.astype(jnp.bfloat16), rngs=RNGS).dtype == jnp.bfloat16


# ------------------------------------------------------------------------- stochastic depth

# Of many examples with a few tokens each.
BRANCH = jnp.asarray(np.random.default_rng(0).uniform(1.0, 2.0, (2000, 3, 2)), jnp.float32)


@jax.jit
def skipped(x, rate, seed):
    return StochasticDepth().apply({}, x, rate, rngs={"dropout": jax.random.key(seed)})


def test_branches_are_kept_without_a_key_or_a_rate():
    for rate, rngs in ((jnp.float32(0.5), {}), (None, RNGS)):
        np.testing.assert_array_equal(StochasticDepth().apply({}, BRANCH, rate, rngs=rngs), BRANCH)


def test_an_example_is_kept_whole_or_left_out_whole():
    ratio = np.asarray(skipped(BRANCH, jnp.float32(0.2), 0) / BRANCH).reshape(len(BRANCH), -1)
    kept = ratio[:, 0] > 0
    np.testing.assert_allclose(ratio[kept], 1 / 0.8, rtol=1e-6)
    np.testing.assert_array_equal(ratio[~kept], 0.0)
    # Five standard deviations of the mean of 2,000 draws.
    assert abs(kept.mean() - 0.8) < 5 * np.sqrt(0.2 * 0.8 / 2000)


def test_the_mean_of_a_branch_is_kept():
    rate, draws = 0.4, 64
    outputs = np.stack([skipped(BRANCH, jnp.float32(rate), seed) for seed in range(draws)])
    # Relative to the branch, one draw has the variance rate / (1 - rate).
    bound = 5 * np.sqrt(rate / (1 - rate) / (draws * len(BRANCH)))
    assert abs(outputs.mean() / BRANCH.mean() - 1) < bound


@pytest.mark.parametrize(("rate", "share"), [(0.0, 1.0), (1.0 - 1e-7, 0.0)])
def test_rates_at_the_ends(rate, share):
    output = skipped(BRANCH, jnp.float32(rate), 0)
    np.testing.assert_array_equal(output, share * BRANCH)


def test_keys_decide_which_examples_are_left_out():
    once, again, other = (skipped(BRANCH, jnp.float32(0.5), seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(once, again)
    assert (once != other).any()


def test_dtype_of_a_branch_is_kept():
    branch = BRANCH[:2].astype(jnp.bfloat16)
    assert skipped(branch, jnp.float32(0.5), 0).dtype == jnp.bfloat16
