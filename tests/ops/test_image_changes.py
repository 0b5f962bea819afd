"""Changes of images in numbers; test_device_augmentation.py compares them with Pillow's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer.ops import image_changes
from transformer.ops.image_changes import CHANGES

changed = jax.jit(image_changes.changed)
affine_maps = jax.jit(image_changes.affine_maps, static_argnums=(2, 3))


def after(name, strength, image):
    """One image `[Y, X]` or `[Y, X, C]` after a change."""
    image = jnp.asarray(image, jnp.float32)
    pixels = image[None, :, :, None] if image.ndim == 2 else image[None]
    found = changed(pixels, jnp.array([CHANGES.index(name)]), jnp.array([strength]))
    return found[0].reshape(image.shape).tolist()


def test_places_of_an_image_that_is_wider_than_high():
    cosine, sine, part = np.sqrt(0.75), 0.5, 150 / 331
    expected = {
        "identity": [[1, 0, 0], [0, 1, 0]],
        # By 30 degrees about the middle, which is at 4, 2.
        "rotate": [
            [cosine, -sine, 4 - 4 * cosine + 2 * sine],
            [sine, cosine, 2 - 4 * sine - 2 * cosine],
        ],
        "shear_x": [[1, 0.3, -0.6], [0, 1, 0]],
        "shear_y": [[1, 0, 0], [0.3, 1, -1.2]],
        "translate_x": [[1, 0, 8 * part], [0, 1, 0]],
        "translate_y": [[1, 0, 0], [0, 1, 4 * part]],
    }
    which = jnp.array([CHANGES.index(name) for name in expected])
    found = affine_maps(which, jnp.ones(len(expected)), 4, 8)
    np.testing.assert_allclose(found, list(expected.values()), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "strength", "before", "expected"),
    [
        # The upper four bits remain.
        ("posterize", 1.0, [0, 15, 17, 255], [0, 0, 16, 240]),
        ("posterize", -0.25, [0, 15, 17, 255], [0, 14, 16, 254]),
        # From 128 on.
        ("solarize", 0.5, [0, 127, 128, 200], [0, 127, 127, 55]),
        ("solarize", 0.0, [0, 127, 254, 255], [0, 127, 254, 255]),
        # Times 1.9 and 0.1.
        ("brightness", 1.0, [0, 9, 100, 200], [0, 17, 190, 255]),
        ("brightness", -1.0, [0, 9, 100, 200], [0, 0, 10, 20]),
        # The mean is 12.25, so 12.
        ("contrast", 1.0, [0, 9, 10, 30], [0, 6, 8, 46]),
        # From 50 and 150 to 0 and 255.
        ("auto_contrast", 1.0, [50, 100, 150, 151], [0, 126, 252, 255]),
        ("auto_contrast", 1.0, [7, 7, 7, 7], [7, 7, 7, 7]),
        ("auto_contrast", 1.0, [7, 8, 7, 7], [0, 255, 0, 0]),
        # By 150 of 331 parts of four pixels: between the second and the third that follow.
        ("translate_x", 1.0, [10, 20, 30, 40], [28, 38, 0, 0]),
        ("translate_x", -1.0, [10, 20, 30, 40], [0, 0, 12, 22]),
    ],
)
def test_rows_of_pixels(name, strength, before, expected):
    assert after(name, strength, [before]) == [expected]


def test_other_changes_in_numbers():
    # Red is 76 bright, to which colours go nine tenths of the way.
    assert after("color", -1.0, [[[255, 0, 0]]]) == [[[93, 68, 68]]]
    # The neighbours of 130, 50 on average, are farther or nearer; edges stay.
    spot = np.zeros((3, 4))
    spot[1, 1] = 130
    sharper, softer = after("sharpness", 1.0, spot), after("sharpness", -1.0, spot)
    assert np.array(sharper)[1].tolist() == [0, 202, 0, 0]
    assert np.array(softer)[1].tolist() == [0, 58, 9, 0]
    assert not np.array([sharper, softer])[:, ::2].any()
    # What has only edges stays as it is.
    assert after("sharpness", 1.0, spot[:2]) == spot[:2].tolist()
    # Of 512 pixels 2 have a step; the brightest do not count.
    slope = np.repeat(np.arange(256), 2).reshape(16, 32) // 4 * 2
    found = np.array(after("equalize", 1.0, slope)).ravel()
    counts = np.cumsum([8] * 64) - 8
    step = (512 - 8) // 255
    expected = np.minimum((step // 2 + counts) // step, 255)
    assert found.tolist() == np.repeat(expected, 8).tolist()
