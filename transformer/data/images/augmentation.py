"""Images cut to one size, changed at random and mixed.

Every function takes images as uint8 `[H, W, C]`, C being 1 (grey) or 3 (red, green, blue), leaves
them as they are and returns another; where there is nothing to do it may return the same.
"""

import math
from typing import NamedTuple

import numpy as np
from PIL import Image

# Filters by name, with the numbers that Pillow has for them.
RESAMPLINGS: dict[str, int] = {member.name.lower(): int(member) for member in Image.Resampling}
# The number of draws of a box before giving up. Szegedy et al. 2015 do not say; their code has 10.
_TRIES = 10
# Pillow averages whole blocks of pixels first where an image shrinks to less than a third of that.
_REDUCING_GAP = 3.0


class Box(NamedTuple):
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int

    def pixels(self, image: np.ndarray) -> np.ndarray:
        """The pixels of an image that lie in the box, as a view."""
        return image[self.top : self.top + self.height, self.left : self.left + self.width]


def to_pillow(image: np.ndarray) -> Image.Image:
    """An image as Pillow has it, grey or in colour."""
    return Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)


def from_pillow(image: Image.Image) -> np.ndarray:
    """An image of Pillow's as an array `[H, W, C]`; it cannot be written to."""
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def resize(image: np.ndarray, height: int, width: int, resample: str = "bilinear") -> np.ndarray:
    """Resizes an image; each pixel is a mean over the area that it covers.

    For strong shrinking, whole blocks are averaged first, which is faster and nearly the same.

    Args:
        image: `[H, W, C]`.
        height: the height of the result, in pixels.
        width: the width of the result, in pixels.
        resample: the filter, a name in `RESAMPLINGS`.
    """
    if image.shape[:2] == (height, width):
        return image
    filter_ = Image.Resampling(RESAMPLINGS[resample])
    pillow = to_pillow(image).resize((width, height), filter_, reducing_gap=_REDUCING_GAP)
    return from_pillow(pillow)


def random_resized_crop(
    image: np.ndarray,
    size: int,
    generator: np.random.Generator,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    resample: str = "bilinear",
) -> np.ndarray:
    """A random part of an image, stretched to a square (Szegedy et al. 2015, section 6).

    If ten draws do not fit into the image, it is the largest central part with an allowed ratio.

    Args:
        image: `[H, W, C]`.
        size: side of the result, in pixels.
        generator: random numbers for the part.
        scale: least and most of the image's area that the part covers, as fractions.
        ratio: least and most of its width over its height; even odds on a logarithmic scale.
        resample: the filter, a name in `RESAMPLINGS`.

    Returns:
        `[size, size, C]`.
    """
    height, width = image.shape[:2]
    box = _random_box(height, width, generator, scale, ratio)
    if box is None:
        part_width = max(1, min(width, round(height * ratio[1])))
        part_height = max(1, min(height, round(width / ratio[0])))
        box = Box((height - part_height) // 2, (width - part_width) // 2, part_height, part_width)
    return resize(box.pixels(image), size, size, resample)


def flip(image: np.ndarray) -> np.ndarray:
    """An image with left and right exchanged, as a view."""
    return image[:, ::-1]


def random_shift(image: np.ndarray, pixels: int, generator: np.random.Generator) -> np.ndarray:
    """Shifts an image up or down, left or right, and fills with 0.

    Args:
        image: `[H, W, C]`.
        pixels: how far at most, in each direction; every whole number has the same odds.
        generator: random numbers for the distances.
    """
    height, width, channels = image.shape
    down, right = generator.integers(2 * pixels, size=2, endpoint=True).tolist()
    padded = np.zeros((height + 2 * pixels, width + 2 * pixels, channels), np.uint8)
    padded[down : down + height, right : right + width] = image
    return padded[pixels : pixels + height, pixels : pixels + width]


def random_erasing(
    image: np.ndarray,
    generator: np.random.Generator,
    probability: float,
    scale: tuple[float, float] = (0.02, 1 / 3),
    ratio: tuple[float, float] = (0.3, 10 / 3),
) -> np.ndarray:
    """An image with a random box of noise in it (Zhong et al. 2017, algorithm 1).

    Every pixel of the box is drawn independently, which the paper finds best (RE-R).

    Args:
        image: `[H, W, C]`.
        generator: random numbers for everything.
        probability: that there is a box. There is none either if ten draws do not fit.
        scale: least and most of the image's area that it covers, as fractions.
        ratio: least and most of its width over its height.
    """
    if generator.random() >= probability:
        return image
    height, width = image.shape[:2]
    box = _random_box(height, width, generator, scale, ratio)
    if box is None:
        return image
    erased = image.copy()
    part = box.pixels(erased)
    part[:] = generator.integers(256, size=part.shape, dtype=np.uint8)
    return erased


def mixup(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """The mean of two images of one shape (Zhang et al. 2017, section 2), rounded.

    Args:
        first: `[H, W, C]`.
        second: `[H, W, C]`.
        share: weight of the first image, from 0 to 1; the second has the remaining weight.
    """
    mixed = np.float32(share) * first + np.float32(1 - share) * second
    return np.rint(mixed).astype(np.uint8)


def cutmix(first: np.ndarray, second: np.ndarray, box: Box) -> np.ndarray:
    """The first image with a box of the second at the same place (Yun et al. 2019, section 3.1).

    Args:
        first: `[H, W, C]`.
        second: `[H, W, C]`.
        box: the part that is taken from the second image.
    """
    mixed = first.copy()
    box.pixels(mixed)[:] = box.pixels(second)
    return mixed


def cut_box(
    height: int, width: int, share: float, generator: np.random.Generator
) -> tuple[Box, float]:
    """A random box for `cutmix`, with the ratio of the image (Yun et al. 2019, equation 2).

    Its centre is anywhere in the image, and the box is clipped to the image.

    Args:
        height: the height of the image.
        width: the width of the image.
        share: the fraction of the first image that remains, from 0 to 1.
        generator: random numbers for the place.

    Returns:
        The box, and the share of the first image that it leaves, counted in pixels.
    """
    side = math.sqrt(1 - share)
    top, box_height = _cut_span(height, side, generator)
    left, box_width = _cut_span(width, side, generator)
    return Box(top, left, box_height, box_width), 1 - box_height * box_width / (height * width)


def _cut_span(length: int, part: float, generator: np.random.Generator) -> tuple[int, int]:
    """Start and length of a part of a side around a random place, cut off at its ends."""
    wanted = round(length * part)
    start = int(generator.integers(length)) - wanted // 2
    first, stop = max(start, 0), min(start + wanted, length)
    return first, stop - first


def _random_box(
    height: int,
    width: int,
    generator: np.random.Generator,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Box | None:
    """A box of random area, ratio and place; None if none of the draws lies in the image."""
    for _ in range(_TRIES):
        area = height * width * generator.uniform(*scale)
        drawn = math.exp(generator.uniform(math.log(ratio[0]), math.log(ratio[1])))
        box_height, box_width = round(math.sqrt(area / drawn)), round(math.sqrt(area * drawn))
        if 0 < box_height <= height and 0 < box_width <= width:
            top = int(generator.integers(height - box_height, endpoint=True))
            left = int(generator.integers(width - box_width, endpoint=True))
            return Box(top, left, box_height, box_width)
    return None
