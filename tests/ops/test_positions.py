import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import normal
from transformer.ops.positions import (
    LinearRotaryScaling,
    RotaryScaling,
    in_half_precision,
    rotary,
    sinusoidal,
    sinusoidal_2d,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_sinusoidal_is_the_formula_of_the_paper():
    width = 6
    expected = np.zeros((20, width))
    for position in range(20):
        for i in range(width // 2):
            angle = position / 10_000 ** (2 * i / width)
            expected[position, 2 * i] = np.sin(angle)
            expected[position, 2 * i + 1] = np.cos(angle)
    np.testing.assert_allclose(sinusoidal(jnp.arange(20), width), expected, atol=1e-5)


def test_sines_before_cosines():
    by_turns = sinusoidal(jnp.arange(9).reshape(3, 3), 6)
    halves = sinusoidal(jnp.arange(9).reshape(3, 3), 6, interleaved=False)
    np.testing.assert_array_equal(halves[..., :3], by_turns[..., ::2])
    np.testing.assert_array_equal(halves[..., 3:], by_turns[..., 1::2])


def test_sinusoidal_of_any_shape():
    positions = jnp.array([[3, 1], [0, 2]])
    table = sinusoidal(jnp.arange(4), 4)
    np.testing.assert_array_equal(sinusoidal(positions, 4), table[positions])


@pytest.mark.parametrize(("rows", "columns"), [(3, 3), (2, 5), (1, 4)])
def test_positions_on_a_grid_are_those_of_row_and_column(rows, columns):
    table = np.asarray(sinusoidal_2d(rows, columns, 8))
    assert table.shape == (rows * columns, 8)
    line = np.asarray(sinusoidal(jnp.arange(5), 4))
    for place, position in enumerate(table):
        row, column = divmod(place, columns)
        np.testing.assert_allclose(position[:4], line[row], atol=1e-6)
        np.testing.assert_allclose(position[4:], line[column], atol=1e-6)


def test_rotary_rotates_each_pair(rng):
    x = normal(rng, 1, 3, 2, 6)
    rotated = np.asarray(rotary(x, jnp.array([[0, 1, 7]])))
    for t, position in enumerate([0, 1, 7]):
        for i in range(3):
            angle = position / 10_000 ** (2 * i / 6)
            turned = (x[0, t, :, i] + 1j * x[0, t, :, i + 3]) * np.exp(1j * angle)
            np.testing.assert_allclose(rotated[0, t, :, i], turned.real, atol=1e-5)
            np.testing.assert_allclose(rotated[0, t, :, i + 3], turned.imag, atol=1e-5)


def test_rotary_keeps_norms(rng):
    x = normal(rng, 2, 5, 3, 8)
    positions = jnp.asarray(rng.integers(0, 1000, (2, 5)))
    rotated = rotary(x, positions)
    assert np.abs(rotated - x).max() > 0.1
    lengths = [jnp.linalg.norm(y, axis=-1) for y in (rotated, x)]
    np.testing.assert_allclose(*lengths, rtol=1e-5)


def test_rotary_products_depend_on_distance_alone(rng):
    query, key = normal(rng, 1, 1, 1, 8), normal(rng, 1, 1, 1, 8)

    def product(query_position, key_position):
        turned = rotary(query, jnp.array([[query_position]]))
        return jnp.sum(turned * rotary(key, jnp.array([[key_position]])))

    np.testing.assert_allclose(product(5, 2), product(103, 100), atol=1e-4)
    assert abs(product(5, 2) - product(5, 3)) > 1e-2


def test_rotary_positions_broadcast_over_rows(rng):
    x = normal(rng, 2, 3, 1, 4)
    once, twice = jnp.array([[4, 5, 6]]), jnp.array([[4, 5, 6]] * 2)
    np.testing.assert_array_equal(rotary(x, once), rotary(x, twice))


def test_rotary_keeps_the_dtype(rng):
    x = normal(rng, 1, 2, 1, 4).astype(jnp.bfloat16)
    assert rotary(x, jnp.array([[0, 1]])).dtype == jnp.bfloat16


def test_scaled_frequencies_in_numbers():
    # So many rotations within the 64 positions of pretraining.
    rotations = np.array([0.1, 1.0, 2.0, 2.5, 3.0, 10.0])
    frequencies = jnp.asarray(rotations * 2 * np.pi / 64, jnp.float32)
    scaling = RotaryScaling(factor=8.0, low_frequency=1.0, high_frequency=3.0, old_context=64)
    # Halfway from 1 to 3 half of it, a sixteenth in place of the other half.
    expected = [1 / 8, 1 / 8, 1 / 2 + 1 / 16, 3 / 4 + 1 / 32, 1, 1]
    np.testing.assert_allclose(scaling(frequencies) / frequencies, expected, rtol=1e-5)
    linear = LinearRotaryScaling(4.0)
    np.testing.assert_allclose(linear(frequencies) / frequencies, 1 / 4, rtol=1e-6)
    # Modules are equal where these are.
    assert hash(scaling) != hash(linear)
    half = in_half_precision(jnp.array([0.1, 1.0]))
    assert half.dtype == jnp.float32
    assert half.tolist() == [0.0999755859375, 1.0]


def test_odd_widths_raise():
    with pytest.raises(ValueError, match="not 5"):
        sinusoidal(jnp.arange(3), 5)
    with pytest.raises(ValueError, match="a multiple of 4, not 6"):
        sinusoidal_2d(2, 2, 6)
    with pytest.raises(ValueError, match="not 3"):
        rotary(jnp.zeros((1, 1, 1, 3)), jnp.zeros((1, 1), int))
