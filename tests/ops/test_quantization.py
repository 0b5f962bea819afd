"""Finite scalar quantisation, against the nearest of all vectors."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer.ops.quantization import codes_of, num_codes, quantized, squeezed, vectors_of

LEVELS = (5, 4, 2)


def all_vectors():
    """Every vector, the number of the first coordinate changing fastest."""
    values = [[(digit - count // 2) / (count // 2) for digit in range(count)] for count in LEVELS]
    rows = itertools.product(*reversed(values))
    return np.array([row[::-1] for row in rows], np.float32)


def test_a_vector_becomes_the_nearest_of_all():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(50, 3)) * 2.0, jnp.float32)
    half = np.array([count // 2 for count in LEVELS])
    bounded = np.asarray(squeezed(x, LEVELS)) / half
    distances = np.abs(bounded[:, None] - all_vectors()[None]).sum(-1)
    found = quantized(x, LEVELS)
    np.testing.assert_allclose(found, all_vectors()[distances.argmin(axis=1)], atol=1e-6)
    np.testing.assert_array_equal(codes_of(found, LEVELS), distances.argmin(axis=1))


def test_codes_and_vectors_are_each_others_inverse():
    codes = jnp.arange(num_codes(LEVELS))
    vectors = vectors_of(codes, LEVELS)
    np.testing.assert_allclose(vectors, all_vectors(), atol=1e-6)
    np.testing.assert_array_equal(codes_of(vectors, LEVELS), codes)


def test_codes_of_many_levels_and_of_any_axes():
    # Some 13ths are a little too small.
    codes = jnp.arange(26).reshape(2, 13)
    np.testing.assert_array_equal(codes_of(vectors_of(codes, (26,)), (26,)), codes)


def test_numbers_are_squeezed_to_a_thousandth_more_than_the_outermost_levels():
    found = squeezed(jnp.array([[-50.0, -50.0], [0.0, 0.0], [50.0, 50.0]]), (5, 4))
    expected = [[-2.002, -1.5015 - 0.5], [0.0, 0.0], [2.002, 1.5015 - 0.5]]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_large_numbers_reach_the_outermost_levels_and_zero_stays_in_the_middle():
    x = jnp.array([[-50.0] * 3, [0.0] * 3, [50.0] * 3])
    np.testing.assert_allclose(quantized(x, LEVELS), [[-1, -1, -1], [0, 0, 0], [1, 0.5, 0]])


def test_gradients_pass_through_the_rounding():
    x = jnp.array([0.3, -0.2, 0.1])
    half = np.array([count // 2 for count in LEVELS])
    found = jax.jacobian(lambda x: quantized(x, LEVELS))(x)
    expected = jax.jacobian(lambda x: squeezed(x, LEVELS) / half)(x)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert np.diag(found) == pytest.approx(np.diag(expected))
    assert (np.diag(found) > 0).all()
