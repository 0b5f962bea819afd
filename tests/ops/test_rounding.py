import jax
import jax.numpy as jnp
import numpy as np

from tests.common import normal
from transformer.ops.rounding import stochastically_rounded


def words(count):
    return jax.random.bits(jax.random.key(0), (count, 2), jnp.uint32)


def test_the_expectation_is_the_number_itself():
    x = normal(np.random.default_rng(0), 40, 5) * jnp.logspace(-3, 3, 5)
    draws = 4000
    rounded = jax.jit(jax.vmap(stochastically_rounded, (None, 0)))(x, words(draws))
    rounded = np.asarray(rounded, np.float64)
    values = [np.unique(column) for column in rounded.reshape(draws, -1).T]
    assert all(len(found) == 2 for found in values)
    below, above = np.array(values).T.reshape(2, *x.shape)
    assert np.all((below < x) & (x < above))
    # A bfloat16 has eight significant bits.
    assert np.all(above - below <= np.abs(x) * 2**-7)
    error = 0.5 * (above - below) / np.sqrt(draws)
    assert np.all(np.abs(rounded.mean(0) - x) < 4.5 * error)


def test_places_and_calls_round_independently():
    x = jnp.full((64, 64), 1 + 2**-8)
    up = np.asarray(jax.vmap(stochastically_rounded, (None, 0))(x, words(64)) > 1, np.float64)
    assert abs(up.mean() - 0.5) < 0.005
    for other in (np.roll(up, 1, 0), np.roll(up, 1, 1), np.roll(up, 1, 2), up.transpose(0, 2, 1)):
        assert abs(np.corrcoef(up.ravel(), other.ravel())[0, 1]) < 0.02


def test_either_word_gives_other_bits():
    x = jnp.full(64, 1 + 2**-8)
    given = jnp.array([[1, 2], [3, 2], [1, 5], [2, 1]], jnp.uint32)
    rounded = jax.vmap(stochastically_rounded, (None, 0))(x, given).astype(jnp.float32)
    assert len({row.tobytes() for row in np.asarray(rounded)}) == 4


def test_what_bfloat16_holds_stays():
    kept = [0.0, -0.0, 1.5, -384.0, 2.0**-120, np.inf, -np.inf, np.nan]
    x = jnp.asarray(kept, jnp.float32)
    for draw in words(8):
        rounded = stochastically_rounded(x, draw)
        assert rounded.dtype == jnp.bfloat16
        np.testing.assert_array_equal(rounded.astype(jnp.float32), x)
