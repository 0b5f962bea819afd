import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import normal
from transformer.ops.normalization import layer_norm, rms_norm


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_layer_norm_in_numpy(rng):
    x, scale, bias = 3 * normal(rng, 2, 5, 8) + 2, normal(rng, 8), normal(rng, 8)
    wide = np.asarray(x, np.float64)
    normed = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 0.1)
    np.testing.assert_allclose(
        layer_norm(x, scale, bias, epsilon=0.1), normed * scale + bias, atol=1e-5
    )
    np.testing.assert_allclose(layer_norm(x, scale, epsilon=0.1), normed * scale, atol=1e-5)


def test_rms_norm_in_numpy(rng):
    x, scale = 3 * normal(rng, 2, 5, 8) + 2, normal(rng, 8)
    wide = np.asarray(x, np.float64)
    normed = wide / np.sqrt(np.square(wide).mean(-1, keepdims=True) + 0.1)
    np.testing.assert_allclose(rms_norm(x, scale, epsilon=0.1), normed * scale, atol=1e-5)


def test_numbers_as_small_as_the_published_epsilons():
    x, ones = jnp.array([-1e-3, 1e-3]), jnp.ones(2)
    # Variances are 1e-6: epsilon is ten times as large for one norm, and as large for the other.
    np.testing.assert_allclose(layer_norm(x, ones)[1], 1 / np.sqrt(11), rtol=1e-5)
    np.testing.assert_allclose(rms_norm(x, ones)[1], 1 / np.sqrt(2), rtol=1e-5)


def test_a_far_mean_does_not_hurt(rng):
    x = np.asarray(normal(rng, 3, 16))
    ones = jnp.ones(16)
    near, far = (layer_norm(jnp.asarray(x + shift), ones) for shift in (0, 1000))
    np.testing.assert_allclose(near, far, atol=1e-3)


@pytest.mark.parametrize("norm", [layer_norm, rms_norm])
def test_statistics_in_float32_output_in_the_dtype_of_the_input(norm):
    # The sum of squares overflows float16.
    x = jnp.asarray(np.linspace(-300, 300, 64), jnp.float16)
    output = norm(x, jnp.ones(64))
    assert output.dtype == jnp.float16
    expected = norm(x.astype(jnp.float32), jnp.ones(64))
    np.testing.assert_allclose(output, expected, atol=1e-2)
