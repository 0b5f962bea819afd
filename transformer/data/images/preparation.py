"""How an image becomes the input of a model: resized, cropped, rescaled and normalised."""

import dataclasses
import math
from typing import Annotated

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

from transformer.data.images.augmentation import RESAMPLINGS, from_pillow, to_pillow
from transformer.errors import ConfigError, DataError
from transformer.limits import AnyReal, OneOf, PartOrAll, Pixels, Positive

# How many numbers `resize_to` has for each way of resizing.
RESIZINGS = {"shorter": 1, "stretch": 2, "cut": 0, "none": 0}


@dataclasses.dataclass(frozen=True)
class Preparation:
    """The steps of preparing an image, in this order; none is random.

    Pixels are bytes until they are rescaled, on the device. The results equal those of other
    libraries with the same steps, such as the image processors of `transformers`.

    Attributes:
        image_size: height and width of the result, in pixels.
        resize: `shorter` resizes the shorter side to this many pixels, `stretch` resizes height and
            width separately; then the centre is cropped, or smaller images are padded with black.
            `cut` only crops; `none` refuses images of another size.
        resize_to: the size in pixels: of the shorter side, or height and width. Empty takes
            `image_size / crop_fraction`.
        resample: the filter, a name in `RESAMPLINGS`.
        crop_fraction: how much of the resized image's shorter side is kept.
        rescale_factor: multiplies pixels from 0 to 255.
        mean: subtracted from the rescaled pixels, for each channel or for all.
        std: divides the difference, for each channel or for all.
    """

    image_size: Pixels = 224
    resize: Annotated[str, OneOf(RESIZINGS)] = "shorter"
    resize_to: tuple[Pixels, ...] = ()
    resample: Annotated[str, OneOf(RESAMPLINGS)] = "bilinear"
    crop_fraction: PartOrAll = 1.0
    rescale_factor: Positive = 1 / 255
    mean: tuple[AnyReal, ...] = (0.5,)
    std: tuple[Positive, ...] = (0.5,)

    def check(self) -> None:
        """Refuses values that cannot work together.

        Raises:
            ConfigError: names the field.
        """
        for field, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, 3):
                raise ConfigError(
                    f"config.task.preparation.{field} is {values}: one number, or one a channel."
                )
        count, given = RESIZINGS[self.resize], self.resize_to
        if given and len(given) != count:
            wanted = ("nothing", "the pixels of the shorter side", "height and width")[count]
            raise ConfigError(
                f"config.task.preparation.resize_to is {given}: with resize={self.resize} "
                f"beside it, give {wanted}."
            )
        if self.crop_fraction != 1.0 and (given or not count):
            beside = "resize_to" if given else f"resize={self.resize}"
            raise ConfigError(
                f"config.task.preparation.crop_fraction is {self.crop_fraction}, which says "
                f"nothing beside {beside}: leave it at 1.0."
            )

    @property
    def resized(self) -> tuple[int, ...]:
        """`resize_to`, with the default filled in."""
        side = round(self.image_size / self.crop_fraction)
        return self.resize_to or (side,) * RESIZINGS[self.resize]

    def keeps(self, height: int, width: int) -> bool:
        """Whether nothing is done to the pixels of an image of this size."""
        size = self.image_size
        return (height, width) == (size, size) == self._target(height, width)

    def pixels(self, image: UInt8[np.ndarray, "H W C"]) -> UInt8[np.ndarray, "Y X C"]:
        """An image resized and cut; Y and X are `image_size`.

        Args:
            image: C is 1 or 3.

        Raises:
            DataError: if it has another size and may not, or is too elongated.
        """
        height, width = image.shape[:2]
        if self.keeps(height, width):
            return image
        if self.resize == "none":
            raise DataError(
                f"the image has {height} x {width} pixels, and images are not resized here: give "
                f"one of {self.image_size} x {self.image_size}, or see "
                f"config.task.preparation.resize."
            )
        target = self._target(height, width)
        if math.prod(target) > (Image.MAX_IMAGE_PIXELS or math.inf):
            raise DataError(
                f"the image has {height} x {width} pixels, and resized it would have "
                f"{target[0]:,} x {target[1]:,}: cut it first."
            )
        if target != (height, width):
            filter_ = Image.Resampling(RESAMPLINGS[self.resample])
            image = from_pillow(to_pillow(image).resize(target[::-1], filter_))
        return _middle(image, self.image_size)

    def _target(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after resizing."""
        if self.resize == "stretch":
            return self.resized[0], self.resized[1]
        if self.resize != "shorter":
            return height, width
        (shorter,) = self.resized
        longer = int(shorter * max(height, width) / min(height, width))
        return (shorter, longer) if height <= width else (longer, shorter)

    def normalized(
        self,
        pixels: UInt8[Array, "B Y X C"] | Float[Array, "B Y X C"] | UInt8[np.ndarray, "B Y X C"],
    ) -> Float[Array, "B Y X C"]:
        """Pixels from 0 to 255, normalised for the model."""
        scaled = jnp.asarray(pixels, jnp.float32) * self.rescale_factor
        return (scaled - jnp.asarray(self.mean)) / jnp.asarray(self.std)

    def visible(
        self, values: Float[Array, "B Y X C"] | Float[np.ndarray, "B Y X C"]
    ) -> Float[np.ndarray, "B Y X C"]:
        """Converts normalised pixels back to brightness from 0 to 1."""
        scaled = np.asarray(values) * np.asarray(self.std) + np.asarray(self.mean)
        return np.clip(scaled / (255 * self.rescale_factor), 0.0, 1.0)


def _middle(image: UInt8[np.ndarray, "H W C"], size: int) -> UInt8[np.ndarray, "Y X C"]:
    """The square in the middle, with black where the image does not reach."""
    height, width, channels = image.shape
    top, left = max(0, height - size) // 2, max(0, width - size) // 2
    part = image[top : top + size, left : left + size]
    if part.shape[:2] == (size, size):
        return part
    square = np.zeros((size, size, channels), np.uint8)
    above, before = (math.ceil((size - side) / 2) for side in part.shape[:2])
    square[above : above + part.shape[0], before : before + part.shape[1]] = part
    return square
