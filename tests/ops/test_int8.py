import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import normal
from transformer.ops.int8 import Int8, int8_dense, int8_scores, rounded


def test_rounding_by_hand():
    values = jnp.array([[1.0, -254.0], [0.5, 2.0], [0.0, 0.0]])
    found = rounded(values, axes=1)
    np.testing.assert_array_equal(found.numbers, [[0, -127], [32, 127], [0, 0]])
    np.testing.assert_allclose(found.scales, [[2.0], [2.0 / 127], [1.0 / 127]], rtol=1e-6)
    # At most half a scale is lost.
    assert (jnp.abs(found.restored("float32") - values) <= found.scales / 2).all()
    assert found.restored("bfloat16").dtype == jnp.bfloat16
    # In float32, where 16 bits hold no number as large as 127 x 1,000.
    large = Int8(jnp.array([127], jnp.int8), jnp.array([1000.0]))
    assert large.restored("float32") == 127_000
    assert rounded(values.astype(jnp.bfloat16), axes=0).scales.dtype == jnp.float32
    with pytest.raises(dataclasses.FrozenInstanceError):
        large.scales = found.scales


@pytest.mark.parametrize("rows", [1, 3])
def test_products_are_those_of_the_restored_kernel(rows):
    rng = np.random.default_rng(rows)
    inputs = normal(rng, rows, 1, 3, 4)
    kernel = rounded(normal(rng, 3, 4, 5, 2), axes=(0, 1))
    assert kernel.scales.shape == (1, 1, 5, 2)
    bias = normal(rng, 5, 2)
    found = jax.jit(functools.partial(int8_dense, num_input_axes=2))(inputs, kernel, bias)
    restored = np.asarray(kernel.numbers, np.float32) * np.asarray(kernel.scales)
    expected = np.einsum("btnh,nhof->btof", inputs, restored) + np.asarray(bias)
    # Less than 1/30,000 of the largest input is lost, for each of the twelve.
    np.testing.assert_allclose(found, expected, atol=3e-4)
    plain = int8_dense(inputs.reshape(rows, 12), rounded(normal(rng, 12, 2), axes=0))
    assert plain.shape == (rows, 2)


def test_products_with_rows_of_a_table():
    # Numbers of 8 bits times 2 and 4, and inputs that need no more than two times 8.
    table = Int8(jnp.array([[1, 2, 3], [-4, 5, 127]], jnp.int8), jnp.array([[2.0], [4.0]]))
    inputs = jnp.array([[[127.0, 0.0, 1.0]], [[0.0, 0.0, 0.0]]])
    expected = [[[2 * 130, 4 * (-508 + 127)]], [[0.0, 0.0]]]
    found = int8_scores(inputs, table)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert int8_scores(inputs.astype(jnp.bfloat16), table).dtype == jnp.bfloat16


def test_outputs_keep_the_dtype_of_inputs_and_nothing_else_does():
    rng = np.random.default_rng(0)
    kernel, bias = rounded(normal(rng, 3, 4), axes=0), normal(rng, 4)
    inputs = normal(rng, 2, 3).astype(jnp.bfloat16)
    expected = int8_dense(inputs.astype(jnp.float32), kernel, bias).astype(jnp.bfloat16)
    found = int8_dense(inputs, kernel, bias)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, expected)
