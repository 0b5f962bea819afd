import jax.numpy as jnp
import numpy as np
import pytest

from transformer.ops.hashing import mixed, places

both = pytest.mark.parametrize("library", [np, jnp], ids=["numpy", "jax"])


@both
def test_the_mix_is_that_of_murmur_hash(library):
    # Published: hashes of the empty text with the seeds 0, 1 and -1.
    found = mixed(library.asarray([0, 1, 0xFFFFFFFF], np.uint32))
    np.testing.assert_array_equal(found, np.array([0, 0x514E28B7, 0x81F16F39], np.uint32))


@both
def test_the_number_of_a_place_is_made_of_its_indices(library):
    odd = 0x9E3779B1
    expected = [[(i * odd + j) % 2**32 for j in range(3)] for i in range(2)]
    np.testing.assert_array_equal(places((2, 3), library), np.array(expected, np.uint32))
    deep = [[[((i * odd + j) * odd + k) % 2**32 for k in (0, 1)] for j in (0, 1)] for i in (0, 1)]
    np.testing.assert_array_equal(places((2, 2, 2), library), np.array(deep, np.uint32))
