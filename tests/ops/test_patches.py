import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.common import normal
from transformer.ops.patches import patchify, unpatchify


@pytest.mark.parametrize(("height", "width", "size"), [(8, 12, 4), (6, 6, 3), (4, 4, 4), (2, 3, 1)])
def test_a_dense_layer_on_patches_is_a_strided_convolution(height, width, size):
    rng = np.random.default_rng(0)
    images, kernel = normal(rng, 2, height, width, 3), normal(rng, size, size, 3, 5)
    expected = jax.lax.conv_general_dilated(
        images, kernel, (size, size), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    found = patchify(images, size) @ kernel.reshape(-1, 5)
    np.testing.assert_allclose(found, expected.reshape(2, -1, 5), atol=1e-5)


def test_the_order_of_values():
    # Each value tells where it stands: row, column, channel.
    rows, columns, channels = np.indices((4, 6, 3))
    patches = np.asarray(patchify(jnp.asarray(100 * rows + 10 * columns + channels)[None] * 1.0, 2))
    # Patches of the first row of the image, then those of the second.
    assert patches[0, :, 0].tolist() == [0, 20, 40, 200, 220, 240]
    # Within the last patch: a row of it, in that a column, in that a channel.
    expected = [240, 241, 242, 250, 251, 252, 340, 341, 342, 350, 351, 352]
    assert patches[0, 5].tolist() == expected


def test_the_documented_example():
    images = normal(np.random.default_rng(0), 1, 48, 48, 3)
    patches = patchify(images, 16)
    assert patches.shape == (1, 9, 768)
    for index in range(9):
        row, column = divmod(index, 3)
        square = images[0, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
        np.testing.assert_array_equal(patches[0, index], square.ravel())


@pytest.mark.parametrize(
    ("batch", "rows", "columns", "size", "channels"), [(2, 2, 3, 2, 3), (1, 3, 1, 4, 1)]
)
def test_unpatchify_inverts(batch, rows, columns, size, channels):
    images = normal(np.random.default_rng(0), batch, rows * size, columns * size, channels)
    patches = patchify(images, size)
    assert patches.shape == (batch, rows * columns, size**2 * channels)
    np.testing.assert_array_equal(unpatchify(patches, size, columns), images)


@pytest.mark.parametrize(("height", "width"), [(8, 6), (6, 8), (3, 3)])
def test_patches_that_do_not_fill_the_image_raise(height, width):
    with pytest.raises(ValueError, match=f"4 pixels do not fill {height} x {width}"):
        patchify(jnp.zeros((1, height, width, 3)), 4)
