import jax
import jax.numpy as jnp
import numpy as np

from tests.common import noisy_parameters, normal
from transformer.nn.embeddings import Embedding, sinusoidal_table

IDS = jnp.array([[2, 0, 2]])


def test_lookup():
    table = Embedding(5, 4)
    params = noisy_parameters(table, IDS)
    output = table.apply({"params": params}, IDS)
    np.testing.assert_array_equal(output, params["embedding"][IDS])


def test_attend_is_the_product_with_the_table():
    table = Embedding(5, 4)
    params = noisy_parameters(table, IDS)
    x = normal(np.random.default_rng(0), 2, 3, 4)
    scores = table.apply({"params": params}, x, method="attend")
    np.testing.assert_allclose(scores, x @ params["embedding"].T, atol=1e-6)


def test_dtype_is_of_the_computation_only():
    table = Embedding(5, 4, dtype="bfloat16")
    params = noisy_parameters(table, IDS)
    assert params["embedding"].dtype == jnp.float32
    assert table.apply({"params": params}, IDS).dtype == jnp.bfloat16


def test_initial_sinusoids_have_the_scale_that_is_asked_for():
    table = np.asarray(sinusoidal_table(0.02)(jax.random.key(0), (50, 64)))
    # Of every row, for each has a sine and a cosine of the same angle.
    np.testing.assert_allclose(np.sqrt(np.mean(table**2, axis=1)), 0.02, rtol=1e-5)
    np.testing.assert_array_equal(table, sinusoidal_table(0.02)(jax.random.key(1), (50, 64)))
    assert sinusoidal_table(1.0)(None, (3, 4), jnp.bfloat16).dtype == jnp.bfloat16


def test_one_linear_map_leads_from_any_initial_sinusoid_to_that_a_distance_on():
    table = np.asarray(sinusoidal_table(1.0)(None, (40, 8)), np.float64)
    products = table @ table.T
    for distance in range(40):
        found = np.diagonal(products, distance)
        np.testing.assert_allclose(found, found[0], atol=1e-4)
    # Fitted to the first rows, it holds for all others.
    step, *_ = np.linalg.lstsq(table[:20], table[3:23], rcond=None)
    np.testing.assert_allclose(table[:-3] @ step, table[3:], atol=1e-4)


def test_an_initializer_makes_the_table():
    table = Embedding(5, 4, initializer=sinusoidal_table(0.1))
    params = table.init(jax.random.key(0), IDS)["params"]
    expected = sinusoidal_table(0.1)(None, (5, 4))
    np.testing.assert_array_equal(params["embedding"].value, expected)
