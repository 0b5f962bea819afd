"""Image files as arrays, decoded with Pillow."""

import dataclasses
import functools
import io
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from transformer.errors import DataError, MissingDependencyError

# Endings of the files that are read, in any case.
ENDINGS = frozenset(
    [".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"]
)

# What Pillow may take a file for, whatever its ending. Others of its formats start programs.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")

# Pillow's modes in words.
_KINDS = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey with transparency",
    "La": "grey with transparency",
    "P": "palette",
    "PA": "palette with transparency",
    "RGBA": "RGB with transparency",
    "RGBa": "RGB with transparency",
}
_SIXTEEN_BITS = "16-bit grey"

# Where warnings of Pillow come from.
_PILLOW_MODULES = r"PIL\."

# What needs one channel only.
GREY_KINDS = frozenset({"black and white", "grey", "grey with transparency", _SIXTEEN_BITS})


class DecodeError(Exception):
    """An image that cannot be decoded; says why, but not which one it is."""


class Decoded(NamedTuple):
    """An image.

    Attributes:
        pixels: `[height, width, C]`.
        kind: what the file holds, in words, such as "grey" or "RGB".
    """

    pixels: UInt8[np.ndarray, "height width C"]
    kind: str


@dataclasses.dataclass(frozen=True, eq=False)
class FileImages:
    """Images that stay in their files until they are asked for. Threads may ask at the same time.

    Attributes:
        root: the folder that all are in.
        files: the path of each below `root`.
        channels: C, 1 or 3.
    """

    root: str
    files: list[str]
    channels: int

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int, /) -> UInt8[np.ndarray, "height width C"]:
        return read_image_file(Path(self.root, self.files[index]), self.channels)


def read_image_file(
    path: str | Path, channels: int
) -> UInt8[np.ndarray, "height width {channels}"]:
    """One image.

    It is turned upright if its EXIF data say how. What is transparent lies on white. 16-bit grey is
    scaled to 8 bits, palettes and CMYK become RGB, and of several frames or pages the first is
    taken. Grey is made from RGB with the weights of ITU-R BT.601.

    Args:
        path: of a PNG, JPEG, BMP, GIF, WebP, TIFF or PPM file.
        channels: C, 1 for grey or 3 for RGB.

    Raises:
        DataError: if it cannot be read.
        MissingDependencyError: if Pillow is not installed.
    """
    path = Path(path)
    try:
        return decode(read_content(path), channels).pixels
    except DecodeError as error:
        raise DataError(f"{path} cannot be used as an image: {error}") from None


def read_content(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        DecodeError: if there are none.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DecodeError("it does not exist.") from None
    except IsADirectoryError:
        raise DecodeError("it is a folder.") from None
    except OSError as error:
        raise DecodeError(f"{error.strerror}.") from None
    if not content:
        raise DecodeError("it is empty.")
    return content


def decode(content: bytes, channels: int) -> Decoded:
    """An image file's bytes as an array, as `read_image_file` does it.

    Args:
        content: of the whole file.
        channels: C, 1 or 3.

    Raises:
        DecodeError: if that is not possible.
        MissingDependencyError: if Pillow is not installed.
    """
    pillow = require_pillow()
    _silence_pillow()
    from PIL import ImageOps

    try:
        with pillow.open(io.BytesIO(content), formats=_FORMATS) as image:
            # Pillow only warns up to twice as many. To tell takes no more than the header.
            if image.width * image.height > pillow.MAX_IMAGE_PIXELS:
                raise DecodeError(_too_large(f"{image.width:,} x {image.height:,}", pillow))
            image.load()
            kind = _kind(image)
            upright = ImageOps.exif_transpose(image)
        pixels = np.asarray(_converted(upright, kind, channels, pillow))
    except DecodeError:
        raise
    except pillow.UnidentifiedImageError:
        raise DecodeError(
            "it is damaged at its start, or no PNG, JPEG, BMP, GIF, WebP, TIFF or PPM file."
        ) from None
    except pillow.DecompressionBombError:
        raise DecodeError(_too_large("far", pillow)) from None
    # A damaged file makes Pillow raise almost anything: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        raise DecodeError(f"{str(error) or type(error).__name__}.") from None
    return Decoded(pixels[..., None] if channels == 1 else pixels, kind)


@functools.cache
def require_pillow() -> Any:
    """The module `PIL.Image`.

    Raises:
        MissingDependencyError: if it is not installed.
    """
    try:
        from PIL import Image
    except ImportError:
        raise MissingDependencyError("pillow", "vision", "reading image files") from None
    # All formats are known from now on: threads need not wait for each other to load them.
    Image.init()
    return Image


def _silence_pillow() -> None:
    """Takes away Pillow's warnings, for good.

    What they say of metadata, such as that of a camera, does not concern the pixels, and what they
    say of size is an error here. Python 3.11 cannot silence them in some threads only, nor for a
    while as long as there are others.
    """
    known = any(
        action == "ignore" and getattr(module, "pattern", "") == _PILLOW_MODULES
        for action, _, _, module, _ in warnings.filters
    )
    if not known:
        warnings.filterwarnings("ignore", module=_PILLOW_MODULES)


def _too_large(size: str, pillow: Any) -> str:
    pixels = f"{pillow.MAX_IMAGE_PIXELS:,} pixels"
    has = "far more than" if size == "far" else f"{size} pixels, more than"
    return f"it has {has} the {pixels} that are read: make it smaller."


def _kind(image: Any) -> str:
    """What an image is, in words."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        # Older Pillows have 16 bits of a PNG, and all those of a PGM, in 32.
        return _SIXTEEN_BITS
    kind = _KINDS.get(image.mode, image.mode)
    if image.has_transparency_data and "transparency" not in kind:
        kind += " with transparency"
    return kind


def _converted(image: Any, kind: str, channels: int, pillow: Any) -> Any:
    """An image in mode `L` or `RGB`.

    Args:
        image: of Pillow.
        kind: as `_kind` tells it.
        channels: 1 or 3.
        pillow: the module.

    Raises:
        DecodeError: if the values have no known range.
    """
    if kind == _SIXTEEN_BITS:
        values = np.asarray(image).astype(np.uint32)
        image = pillow.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise DecodeError(
            "its pixels are 32-bit numbers, of which it does not say what is white: save it with 8 "
            "or 16 bits."
        )
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        white = pillow.new("RGBA", image.size, "white")
        # Without its alpha, which is full everywhere now.
        image = pillow.alpha_composite(white, image).convert("RGB")
    return image.convert("L" if channels == 1 else "RGB")
