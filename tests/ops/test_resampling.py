import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import normal
from transformer.ops.resampling import cubic_weights, resize_grid

# Larger, smaller, both, not square, and from and to a single point.
SIZES = [
    ((4, 4), (7, 7)),
    ((14, 14), (24, 24)),
    ((7, 7), (3, 3)),
    ((3, 8), (6, 5)),
    ((5, 2), (5, 9)),
    ((1, 4), (3, 1)),
]


@pytest.mark.parametrize(("old", "new"), SIZES, ids=str)
def test_it_is_the_bicubic_interpolation_of_torch(old, new):
    torch = pytest.importorskip("torch", reason="torch has another bicubic interpolation")
    grid = np.random.default_rng(0).normal(size=(*old, 3)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(grid.transpose(2, 0, 1)[None]),
        size=new,
        mode="bicubic",
        align_corners=False,
    )
    found = resize_grid(jnp.asarray(grid), *new)
    np.testing.assert_allclose(found, expected[0].numpy().transpose(1, 2, 0), atol=1e-5)


@pytest.mark.parametrize(("old", "new"), [(1, 3), (2, 7), (4, 4), (14, 24), (24, 14), (9, 1)])
def test_weights(old, new):
    weights = cubic_weights(old, new)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-12)
    # The line looks the same from its other end.
    np.testing.assert_allclose(weights, weights[::-1, ::-1], atol=1e-12)
    # Each takes from the four around it.
    assert (np.count_nonzero(weights, axis=1) <= 4).all()
    if old == new:
        np.testing.assert_array_equal(weights, np.eye(old))


def test_weights_in_the_middle_of_two_points():
    # Of three points the second stands in the middle of two: Keys' kernel at 1.5 and at 0.5.
    weights = cubic_weights(6, 3)
    np.testing.assert_allclose(weights[1], [0, -0.09375, 0.59375, 0.59375, -0.09375, 0])


def test_the_same_size_keeps_every_bit():
    grid = normal(np.random.default_rng(0), 3, 5, 2)
    np.testing.assert_array_equal(resize_grid(grid, 3, 5), grid)


def test_constants_stay_constant():
    resized = resize_grid(jnp.full((3, 4, 2), 2.5), 7, 2)
    np.testing.assert_allclose(resized, np.full((7, 2, 2), 2.5), atol=1e-6)


def test_the_dtype_is_kept():
    assert resize_grid(jnp.zeros((2, 2, 1), "bfloat16"), 3, 3).dtype == jnp.bfloat16
