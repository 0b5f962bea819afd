import jax
import jax.numpy as jnp
import numpy as np

from transformer.nn.dropout import Dropout

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
