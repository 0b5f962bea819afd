import jax.numpy as jnp
import numpy as np

from transformer.ops.contacts import (
    average_product_correction,
    contact_features,
    contact_probabilities,
)


def test_correction_takes_off_what_rows_and_columns_explain():
    source = np.random.default_rng(0)
    product = source.random((5, 1)) * source.random((1, 5))
    np.testing.assert_allclose(average_product_correction(jnp.asarray(product)), 0.0, atol=1e-6)
    np.testing.assert_array_equal(average_product_correction(jnp.zeros((3, 3))), 0.0)
    # Rows sum to 3 and 7, columns to 4 and 6, all to 10.
    found = average_product_correction(jnp.array([[1.0, 2.0], [3.0, 4.0]]))
    np.testing.assert_allclose(found, [[-0.2, 0.2], [0.2, -0.2]], atol=1e-6)
    # A total of 1 is a total like any other.
    found = average_product_correction(jnp.array([[0.5, 0.0], [0.0, 0.5]]))
    np.testing.assert_allclose(found, [[0.25, -0.25], [-0.25, 0.25]], atol=1e-6)


def test_features_are_of_both_directions():
    weights = jnp.array([[[1.0, 2.0], [4.0, 3.0]], [[0.0, 1.0], [0.0, 0.0]]])
    # The first and its mirror are [[2, 6], [6, 6]], with rows of 8 and 12; the others' rows are 1.
    expected = [[[2 - 3.2, 6 - 4.8], [6 - 4.8, 6 - 7.2]], [[-0.5, 0.5], [0.5, -0.5]]]
    np.testing.assert_allclose(contact_features(weights), expected, atol=1e-5)


def test_probabilities_are_of_weighted_heads():
    features = jnp.array([[[1.0, 0.0], [0.0, 2.0]], [[0.0, 1.0], [1.0, 0.0]]])
    found = contact_probabilities(features, jnp.array([1.0, -2.0]), jnp.array([0.5]))
    logits = np.array([[1.5, -1.5], [-1.5, 2.5]])
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-logits)), rtol=1e-5)
