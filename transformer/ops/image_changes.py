"""The changes of RandAugment for a batch of images, a different one for each image.

Pixels are whole numbers from 0 to 255, held as float32. The results are those of Pillow, which
`data.images.rand_augment` calls on the host, to within rounding.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

# The names of the changes; a change is its place here.
CHANGES = (
    "identity",
    "auto_contrast",
    "equalize",
    "rotate",
    "solarize",
    "color",
    "posterize",
    "contrast",
    "brightness",
    "sharpness",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)

# How far each change goes at strength 1: the ranges of Cubuk et al. 2018.
DEGREES = 30.0
SHEAR = 0.3
TRANSLATE = 150 / 331  # Of the side: 150 pixels of that paper's 331.
ENHANCE = 0.9
POSTERIZE_BITS = 4

# Weights of red, green and blue in brightness (ITU-R 601-2), which Pillow holds as integers.
_LUMA = np.array([19595, 38470, 7471]) / 65536
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13


def changed(
    images: Float[Array, "B Y X C"], changes: Int[Array, " B"], strengths: Float[Array, " B"]
) -> Float[Array, "B Y X C"]:
    """Each image after one change.

    Rotating, shearing and translating are one affine map of places, the four enhancements one
    mixture with another image, and the rest functions of a pixel's value. So an image is read
    three times, however many changes there are.

    Args:
        images: C is 1 or 3.
        changes: a place in `CHANGES` for each image.
        strengths: from -1 to 1; its sign is the direction.
    """

    def chosen(*names: str) -> Bool[Array, "B 1 1 1"]:
        any_of = [changes == CHANGES.index(name) for name in names]
        return jnp.any(jnp.stack(any_of), axis=0)[:, None, None, None]

    size = jnp.abs(strengths)[:, None, None, None]
    factor = 1.0 + ENHANCE * strengths[:, None, None, None]
    bits = jnp.exp2(jnp.round(POSTERIZE_BITS * size))
    bright = _brightness(images)
    kinds = {
        "color": _mixed(bright, images, factor),
        "contrast": _mixed(
            _rounded(jnp.mean(bright, axis=(1, 2, 3), keepdims=True)), images, factor
        ),
        "brightness": _mixed(jnp.zeros_like(images), images, factor),
        "sharpness": _mixed(_smoothed(images), images, factor),
        "posterize": jnp.floor(images / bits) * bits,
        "solarize": jnp.where(images < jnp.round(256.0 * (1.0 - size)), images, 255.0 - images),
        "auto_contrast": _stretched(images),
        "equalize": _equalized(images),
    }
    moved = _moved(images, affine_maps(changes, strengths, images.shape[1], images.shape[2]))
    found = jnp.where(
        chosen("rotate", "shear_x", "shear_y", "translate_x", "translate_y"), moved, images
    )
    for name, values in kinds.items():
        found = jnp.where(chosen(name), values, found)
    return found


def affine_maps(
    changes: Int[Array, " B"], strengths: Float[Array, " B"], height: int, width: int
) -> Float[Array, "B 2 3"]:
    """Where each pixel of a changed image comes from: `x, y = map @ (x, y, 1)`, in pixels.

    Changes that leave pixels in their places have the identity.
    """

    def of(name: str, strength: float) -> Float[Array, " B"]:
        return jnp.where(changes == CHANGES.index(name), strength * strengths, 0.0)

    # Pillow turns against the clock, so that places are turned with it.
    angle = jnp.deg2rad(of("rotate", DEGREES))
    shear_x, shear_y = of("shear_x", SHEAR), of("shear_y", SHEAR)
    move_x, move_y = of("translate_x", TRANSLATE), of("translate_y", TRANSLATE)
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    middle_x, middle_y = width / 2, height / 2
    across = jnp.stack(
        [
            cosine,
            shear_x - sine,
            move_x * width - shear_x * middle_y + middle_x - cosine * middle_x + sine * middle_y,
        ],
        axis=-1,
    )
    down = jnp.stack(
        [
            shear_y + sine,
            cosine,
            move_y * height - shear_y * middle_x + middle_y - sine * middle_x - cosine * middle_y,
        ],
        axis=-1,
    )
    return jnp.stack([across, down], axis=1)


def _moved(images: Float[Array, "B Y X C"], maps: Float[Array, "B 2 3"]) -> Float[Array, "B Y X C"]:
    """Images read at other places, bilinearly; black where a place is outside."""
    height, width = images.shape[1:3]
    y, x = jnp.mgrid[:height, :width] + 0.5
    places = jnp.einsum("bij,jyx->biyx", maps, jnp.stack([x, y, jnp.ones_like(x)]))
    x, y = places[:, 0], places[:, 1]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    x, y = x - 0.5, y - 0.5
    left, top = jnp.floor(x), jnp.floor(y)

    def read(row: Float[Array, "B Y X"], column: Float[Array, "B Y X"]) -> Float[Array, "B Y X C"]:
        rows = jnp.clip(row, 0, height - 1).astype(jnp.int32)
        columns = jnp.clip(column, 0, width - 1).astype(jnp.int32)
        return jax.vmap(lambda image, one, other: image[one, other])(images, rows, columns)

    right, down = (x - left)[..., None], (y - top)[..., None]
    above = (1 - right) * read(top, left) + right * read(top, left + 1)
    below = (1 - right) * read(top + 1, left) + right * read(top + 1, left + 1)
    return jnp.where(inside[..., None], _rounded((1 - down) * above + down * below), 0.0)


def _mixed(
    other: Float[Array, "B ..."], images: Float[Array, "B Y X C"], factor: Float[Array, "B 1 1 1"]
) -> Float[Array, "B Y X C"]:
    """Images farther from another (a factor above 1) or nearer to it."""
    return jnp.clip(jnp.floor(other + factor * (images - other)), 0.0, 255.0)


def _brightness(images: Float[Array, "B Y X C"]) -> Float[Array, "B Y X 1"]:
    if images.shape[-1] == 1:
        return images
    return _rounded(images @ jnp.asarray(_LUMA, images.dtype)[:, None])


def _smoothed(images: Float[Array, "B Y X C"]) -> Float[Array, "B Y X C"]:
    """Each pixel averaged with its neighbours, except at the edges."""
    height, width = images.shape[1:3]
    if min(height, width) < 3:
        return images
    inner = sum(
        float(_SMOOTH[i, j]) * images[:, i : height - 2 + i, j : width - 2 + j]
        for i in range(3)
        for j in range(3)
    )
    return images.at[:, 1:-1, 1:-1].set(_rounded(inner))


def _stretched(images: Float[Array, "B Y X C"]) -> Float[Array, "B Y X C"]:
    """Each channel stretched to the whole range from 0 to 255."""
    least = jnp.min(images, axis=(1, 2), keepdims=True)
    most = jnp.max(images, axis=(1, 2), keepdims=True)
    scale = 255.0 / jnp.maximum(most - least, 1.0)
    # The margin keeps a product that is whole from being rounded down.
    stretched = jnp.floor((images - least) * scale + 1e-3)
    return jnp.where(most > least, stretched, images)


def _equalized(images: Float[Array, "B Y X C"]) -> Float[Array, "B Y X C"]:
    """Each channel with its values evenly spread, as Pillow's `ImageOps.equalize` does it."""
    batch, height, width, channels = images.shape
    values = images.astype(jnp.int32).reshape(batch, height * width, channels).swapaxes(1, 2)
    values = values.reshape(batch * channels, height * width)
    rows = jnp.arange(batch * channels)[:, None]
    counts = jnp.zeros((batch * channels, 256), jnp.int32).at[rows, values].add(1)
    brightest = jnp.take_along_axis(counts, jnp.max(values, axis=1, keepdims=True), axis=1)
    step = (height * width - brightest) // 255
    below = jnp.cumsum(counts, axis=1) - counts
    table = jnp.where(step > 0, (step // 2 + below) // jnp.maximum(step, 1), jnp.arange(256))
    found = jnp.take_along_axis(jnp.clip(table, 0, 255), values, axis=1)
    found = found.reshape(batch, channels, height, width)
    return jnp.moveaxis(found, 1, -1).astype(images.dtype)


def _rounded(values: Float[Array, "..."]) -> Float[Array, "..."]:
    """Rounds to the nearest whole number, a half up."""
    return jnp.floor(values + 0.5)
