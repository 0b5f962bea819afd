"""Random changes of a batch of images on the device, each image in a way of its own.

Pixels are whole numbers from 0 to 255, held as float32: B images of Y by X pixels in C channels.
The functions do what those of `data.images.augmentation` do to one image on the host; their random
numbers are others.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from transformer.ops.image_changes import CHANGES, changed

# The highest magnitude of RandAugment.
HIGHEST_MAGNITUDE = 10.0
# How many boxes of Random Erasing are drawn; the first that fits is taken.
_TRIES = 10
_ERASED_AREA, _ERASED_RATIO = (0.02, 1 / 3), (0.3, 10 / 3)


class Mixed(NamedTuple):
    """Images mixed with others of their batch.

    Attributes:
        images: `[B, Y, X, C]`.
        others: `[B]`, which image of the batch was mixed into each.
        shares: `[B]`, the weight of each image; the other has the rest.
    """

    images: Float[Array, "B Y X C"]
    others: Int[Array, " B"]
    shares: Float[Array, " B"]


def random_flip(key: Key[Array, ""], images: Float[Array, "B Y X C"]) -> Float[Array, "B Y X C"]:
    """Exchanges left and right in half of the images."""
    chosen = jax.random.bernoulli(key, 0.5, images.shape[:1])
    return jnp.where(_wide(chosen), images[:, :, ::-1], images)


def random_shift(
    key: Key[Array, ""], images: Float[Array, "B Y X C"], pixels: int
) -> Float[Array, "B Y X C"]:
    """Shifts images up or down, left or right, and fills with 0.

    Args:
        key: random numbers for the distances.
        images: the images.
        pixels: how far at most, in each direction; every whole number has the same odds.
    """
    batch, height, width, _ = images.shape
    down, right = jax.random.randint(key, (2, batch), -pixels, pixels + 1)
    rows = jnp.arange(height) - down[:, None]
    columns = jnp.arange(width) - right[:, None]
    inside = _within(rows, 0, height)[:, :, None] & _within(columns, 0, width)[:, None, :]
    rows, columns = jnp.clip(rows, 0, height - 1), jnp.clip(columns, 0, width - 1)
    moved = jnp.take_along_axis(images, rows[:, :, None, None], axis=1)
    moved = jnp.take_along_axis(moved, columns[:, None, :, None], axis=2)
    return jnp.where(inside[..., None], moved, 0.0)


def rand_augment(
    key: Key[Array, ""], images: Float[Array, "B Y X C"], num_ops: int, magnitude: float
) -> Float[Array, "B Y X C"]:
    """Images after some of the 14 changes of RandAugment (Cubuk et al. 2019, section 3).

    Args:
        key: random numbers for the changes and their directions.
        images: C is 1 or 3.
        num_ops: how many changes, one after another; N in the paper.
        magnitude: from 0 to 10; M in the paper.
    """
    which, direction = jax.random.split(key)
    shape = (num_ops, images.shape[0])
    chosen = jax.random.randint(which, shape, 0, len(CHANGES))
    signs = 2.0 * jax.random.bernoulli(direction, 0.5, shape) - 1.0
    for changes, strengths in zip(chosen, signs * (magnitude / HIGHEST_MAGNITUDE), strict=True):
        images = changed(images, changes, strengths)
    return images


def random_mix(
    key: Key[Array, ""], images: Float[Array, "B Y X C"], mixup: float, cutmix: float
) -> Mixed:
    """Mixes each image with the one before it in the batch.

    Args:
        key: random numbers for the shares and the boxes.
        images: the images.
        mixup: alpha of the Beta distribution of shares in Mixup (Zhang et al. 2017, section 2); 0
            for none.
        cutmix: the same for CutMix (Yun et al. 2019, section 3.1). With both, either has even odds.

    Raises:
        ValueError: if both are 0.
    """
    if not (mixup or cutmix):
        raise ValueError("mixup and cutmix are both 0: there is nothing to mix.")
    batch, height, width, _ = images.shape
    keys = jax.random.split(key, 4)
    before = jnp.roll(images, 1, axis=0)
    cut = jax.random.bernoulli(keys[0], 0.5, (batch,)) if mixup else jnp.ones((batch,), bool)
    cut = cut & (cutmix > 0.0)
    blend = jax.random.beta(keys[1], mixup or 1.0, mixup or 1.0, (batch,))
    part = jax.random.beta(keys[2], cutmix or 1.0, cutmix or 1.0, (batch,))
    box = _cut_box(keys[3], part, height, width)
    remains = 1.0 - jnp.mean(box, axis=(1, 2))
    blended = jnp.round(_wide(blend) * images + _wide(1.0 - blend) * before)
    found = jnp.where(_wide(cut), jnp.where(box[..., None], before, images), blended)
    others = jnp.roll(jnp.arange(batch), 1)
    return Mixed(found, others, jnp.where(cut, remains, blend))


def random_erasing(
    key: Key[Array, ""], images: Float[Array, "B Y X C"], probability: float
) -> Float[Array, "B Y X C"]:
    """Images with a random box of noise in some of them (Zhong et al. 2017, algorithm 1).

    Args:
        key: random numbers for everything.
        images: the images.
        probability: that there is a box. There is none either if ten draws do not fit.
    """
    batch, height, width, _ = images.shape
    keys = jax.random.split(key, 5)
    draws = (batch, _TRIES)
    area = (
        height
        * width
        * jax.random.uniform(keys[0], draws, minval=_ERASED_AREA[0], maxval=_ERASED_AREA[1])
    )
    low, high = map(math.log, _ERASED_RATIO)
    ratio = jnp.exp(jax.random.uniform(keys[1], draws, minval=low, maxval=high))
    rows, columns = jnp.round(jnp.sqrt(area / ratio)), jnp.round(jnp.sqrt(area * ratio))
    fits = (rows > 0) & (rows <= height) & (columns > 0) & (columns <= width)
    first = jnp.argmax(fits, axis=1)[:, None]
    rows, columns = (jnp.take_along_axis(sizes, first, axis=1)[:, 0] for sizes in (rows, columns))
    place = jax.random.uniform(keys[2], (2, batch))
    top = jnp.floor(place[0] * (height - rows + 1.0))
    left = jnp.floor(place[1] * (width - columns + 1.0))
    inside = _box(top, rows, left, columns, height, width)
    erased = jax.random.bernoulli(keys[3], probability, (batch,)) & jnp.any(fits, axis=1)
    noise = jax.random.randint(keys[4], images.shape, 0, 256).astype(images.dtype)
    return jnp.where((inside & erased[:, None, None])[..., None], noise, images)


def _cut_box(
    key: Key[Array, ""], shares: Float[Array, " B"], height: int, width: int
) -> Bool[Array, "B Y X"]:
    """A random box for CutMix, with the ratio of the image (Yun et al. 2019, equation 2).

    Its centre is anywhere in the image, and the box is clipped to the image.
    """
    side = jnp.sqrt(1.0 - shares)
    place = jax.random.uniform(key, (2, *shares.shape))
    rows, columns = jnp.round(height * side), jnp.round(width * side)
    top = jnp.floor(place[0] * height) - rows // 2
    left = jnp.floor(place[1] * width) - columns // 2
    return _box(top, rows, left, columns, height, width)


def _box(
    top: Float[Array, " B"],
    rows: Float[Array, " B"],
    left: Float[Array, " B"],
    columns: Float[Array, " B"],
    height: int,
    width: int,
) -> Bool[Array, "B Y X"]:
    """The pixels of a rectangle."""
    y = _within(jnp.arange(height), top[:, None], (top + rows)[:, None])
    x = _within(jnp.arange(width), left[:, None], (left + columns)[:, None])
    return y[:, :, None] & x[:, None, :]


def _within(
    places: Array, first: Float[Array, "B 1"] | int, end: Float[Array, "B 1"] | int
) -> Bool[Array, "B n"]:
    return (places >= first) & (places < end)


def _wide(values: Array) -> Array:
    """One value for each image, to be joined with pixels."""
    return values[:, None, None, None]
