import jax.numpy as jnp
import numpy as np

from tests.common import noisy_parameters, normal
from transformer.nn.embeddings import Embedding

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
