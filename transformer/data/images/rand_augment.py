"""RandAugment: a few random changes of an image, all with the same strength (Cubuk et al. 2019)."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from transformer.data.images.augmentation import from_pillow, to_pillow
from transformer.ops.augmentation import HIGHEST_MAGNITUDE
from transformer.ops.image_changes import DEGREES, ENHANCE, POSTERIZE_BITS, SHEAR, TRANSLATE

# An image and a strength from -1 to 1 to the changed image.
_Change = Callable[[Image.Image, float], Image.Image]


def rand_augment(
    image: np.ndarray, num_ops: int, magnitude: float, generator: np.random.Generator
) -> np.ndarray:
    """An image after some of the 14 changes of Cubuk et al. 2019 (section 3), one after another.

    Each is drawn from all of them, and so may come again. Rotating, shearing, translating, and the
    four enhancements go either way with even odds, and farther the higher the magnitude is; at 0
    they leave the image as it is, as do posterizing and solarizing. Equalizing and stretching the
    contrast ignore the magnitude. Pixels from outside the image are 0. A grey image has no colour
    to change, and Pillow does not equalize images of fewer than 256 pixels.

    Args:
        image: uint8 `[H, W, C]`, grey or in colour.
        num_ops: how many changes; N in the paper.
        magnitude: from 0 to 10; M in the paper.
        generator: random numbers for the changes and their directions.

    Returns:
        uint8 `[H, W, C]`.
    """
    chosen = generator.integers(len(CHANGES), size=num_ops)
    signs = 2 * generator.integers(2, size=num_ops) - 1
    changes = tuple(CHANGES.values())
    changed = to_pillow(image)
    for index, sign in zip(chosen.tolist(), signs.tolist(), strict=True):
        changed = changes[index](changed, sign * magnitude / HIGHEST_MAGNITUDE)
    return from_pillow(changed)


def _affine(
    image: Image.Image,
    *,
    shear_x: float = 0.0,
    shear_y: float = 0.0,
    move_x: float = 0.0,
    move_y: float = 0.0,
) -> Image.Image:
    """An image sheared about its middle and moved, by fractions of its sides."""
    width, height = image.size
    # The source of each pixel: x + shear_x y + ..., and y + shear_y x + ...
    across = 1, shear_x, move_x * width - shear_x * height / 2
    down = shear_y, 1, move_y * height - shear_y * width / 2
    return image.transform(
        image.size, Image.Transform.AFFINE, (*across, *down), Image.Resampling.BILINEAR
    )


def _rotate(image: Image.Image, strength: float) -> Image.Image:
    return image.rotate(DEGREES * strength, Image.Resampling.BILINEAR)


def _shear_x(image: Image.Image, strength: float) -> Image.Image:
    return _affine(image, shear_x=SHEAR * strength)


def _shear_y(image: Image.Image, strength: float) -> Image.Image:
    return _affine(image, shear_y=SHEAR * strength)


def _translate_x(image: Image.Image, strength: float) -> Image.Image:
    return _affine(image, move_x=TRANSLATE * strength)


def _translate_y(image: Image.Image, strength: float) -> Image.Image:
    return _affine(image, move_y=TRANSLATE * strength)


def _color(image: Image.Image, strength: float) -> Image.Image:
    return ImageEnhance.Color(image).enhance(1 + ENHANCE * strength)


def _contrast(image: Image.Image, strength: float) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(1 + ENHANCE * strength)


def _brightness(image: Image.Image, strength: float) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(1 + ENHANCE * strength)


def _sharpness(image: Image.Image, strength: float) -> Image.Image:
    return ImageEnhance.Sharpness(image).enhance(1 + ENHANCE * strength)


def _posterize(image: Image.Image, strength: float) -> Image.Image:
    return ImageOps.posterize(image, 8 - round(POSTERIZE_BITS * abs(strength)))


def _solarize(image: Image.Image, strength: float) -> Image.Image:
    return ImageOps.solarize(image, round(256 * (1 - abs(strength))))


def _auto_contrast(image: Image.Image, strength: float) -> Image.Image:
    del strength
    return ImageOps.autocontrast(image)


def _equalize(image: Image.Image, strength: float) -> Image.Image:
    del strength
    return ImageOps.equalize(image)


def _identity(image: Image.Image, strength: float) -> Image.Image:
    del strength
    return image


CHANGES: dict[str, _Change] = {
    "identity": _identity,
    "auto_contrast": _auto_contrast,
    "equalize": _equalize,
    "rotate": _rotate,
    "solarize": _solarize,
    "color": _color,
    "posterize": _posterize,
    "contrast": _contrast,
    "brightness": _brightness,
    "sharpness": _sharpness,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}
