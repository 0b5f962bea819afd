"""Image files as arrays, decoded with Pillow."""

import contextlib
import dataclasses
import functools
import io
import re
import threading
import warnings
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from transformer.data.reading.content import read_image_content
from transformer.errors import DataError, MissingDependencyError

if TYPE_CHECKING:
    import PIL.Image

# A colour as Pillow has it, whichever way the format says it.
Colour = int | tuple[int, ...] | bytes
# Endings of the files that are read, in any case.
ENDINGS = frozenset(
    [".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"]
)

# The formats that Pillow may detect, whatever the suffix. Some of its other formats start programs.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")

# Pixels of an image beyond which threads decode one at a time. Each takes up to 20 bytes while it
# is converted: 1.8 GB for the largest image that is read, which may be a file of 10 kB.
_LARGE = 1 << 24
_ONE_LARGE = threading.Lock()

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
_TRANSPARENT = " with transparency"

# Tags of a TIFF.
_BITS, _PHOTOMETRIC = 258, 262
_WHITE_IS_ZERO = 0

# The module that Pillow's warnings come from.
_PILLOW_MODULES = r"PIL\."

# Modes that need only one channel.
_GREY_KINDS = ("black and white", "grey", _SIXTEEN_BITS)
GREY_KINDS = frozenset(_GREY_KINDS) | {kind + _TRANSPARENT for kind in _GREY_KINDS}


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
    """Images that are decoded from their files on access. Access is thread-safe.

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

    def name(self, index: int) -> str:
        """Its file."""
        return self.files[index]

    def some(self, chosen: Int[np.ndarray, " m"]) -> "FileImages":
        """Some of them, by number."""
        files = [self.files[index] for index in chosen]
        return dataclasses.replace(self, files=files)


def read_image_file(
    path: str | Path, channels: int
) -> UInt8[np.ndarray, "height width {channels}"]:
    """One image.

    It is turned upright if its EXIF data say how. Transparent parts are put on white. 16 bits are
    scaled to 8, palettes, CMYK, YCbCr and LAB become RGB, and of several frames or pages the first
    is taken. Grey is made from RGB with the weights of ITU-R BT.601.

    Args:
        path: the path of a PNG, JPEG, BMP, GIF, WebP, TIFF or PPM file.
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
        DecodeError: if it cannot be read.
    """
    try:
        content = read_image_content(path)
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
        content: the content of the whole file.
        channels: C, 1 or 3.

    Raises:
        DecodeError: if that is not possible.
        MissingDependencyError: if Pillow is not installed.
    """
    pillow = require_pillow()
    _silence_pillow()
    from PIL import ImageOps

    try:
        with contextlib.ExitStack() as held:
            image = held.enter_context(pillow.open(io.BytesIO(content), formats=_FORMATS))
            size = image.width * image.height
            # Pillow only warns up to twice as many. Checking the size reads only the header.
            if size > pillow.MAX_IMAGE_PIXELS:
                raise DecodeError(_too_large(f"{image.width:,} x {image.height:,}", pillow))
            if size > _LARGE:
                held.enter_context(_ONE_LARGE)
            image.load()
            kind = _kind(image)
            scale = _grey_scale(image)
            transparent = _transparent_colour(image, content)
            upright = ImageOps.exif_transpose(image)
            if kind.startswith(_SIXTEEN_BITS):
                upright = _eight_bits(upright, scale, transparent, pillow)
            elif transparent is not None:
                upright.info["transparency"] = transparent
            pixels = np.asarray(_converted(upright, channels, pillow))
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
def require_pillow() -> ModuleType:
    """The module `PIL.Image`.

    Raises:
        MissingDependencyError: if it is not installed.
    """
    try:
        from PIL import Image
    except ImportError:
        raise MissingDependencyError("pillow", "vision", "reading image files") from None
    # Loads all formats now, so that threads do not wait for each other to load them.
    Image.init()
    return Image


def _silence_pillow() -> None:
    """Silences Pillow's warnings permanently.

    Warnings about metadata, such as a camera's, do not concern the pixels, and those about size are
    errors here. Python 3.11 cannot silence them for single threads, nor temporarily while other
    threads run.
    """
    known = any(
        action == "ignore" and isinstance(module, re.Pattern) and module.pattern == _PILLOW_MODULES
        for action, _, _, module, _ in warnings.filters
    )
    if not known:
        warnings.filterwarnings("ignore", module=_PILLOW_MODULES)


def _too_large(size: str, pillow: ModuleType) -> str:
    pixels = f"{pillow.MAX_IMAGE_PIXELS:,} pixels"
    has = "far more than" if size == "far" else f"{size} pixels, more than"
    return f"it has {has} the {pixels} that are read: make it smaller."


def _kind(image: "PIL.Image.Image") -> str:
    """What an image is, in words."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        # Older versions of Pillow store 16-bit PNGs, and all such PGMs, in 32 bits.
        kind = _SIXTEEN_BITS
    else:
        kind = _KINDS.get(image.mode, image.mode)
    if image.has_transparency_data and "transparency" not in kind:
        kind += _TRANSPARENT
    return kind


def _grey_scale(image: "PIL.Image.Image") -> tuple[int, int]:
    """The numbers of black and of white in an image of 16-bit grey.

    Pillow inverts a TIFF whose 0 is white only up to 8 bits, and does not scale 12 bits.
    """
    if image.format != "TIFF":
        return 0, 65535
    highest = 2 ** image.tag_v2.get(_BITS, (16,))[0] - 1
    turned = image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    return (highest, 0) if turned else (0, highest)


def _transparent_colour(image: "PIL.Image.Image", content: bytes) -> Colour | None:
    """The colour of a PNG that is transparent, in numbers as the pixels have them; None if none is.

    Pillow spreads few bits over 0 to 255 and leaves out the lower half of 16, but not of this one.
    """
    found = image.info.get("transparency")
    if image.format != "PNG" or found is None:
        return found
    # The header is the first part of the file; after names and sizes comes the number of bits.
    bits = content[24]
    if isinstance(found, tuple) and bits == 16:
        return tuple(value >> 8 for value in found)
    if isinstance(found, int) and image.mode == "L" and bits < 8:
        return found * 255 // (2**bits - 1)
    return found


def _eight_bits(
    image: "PIL.Image.Image",
    scale: tuple[int, int],
    transparent: Colour | None,
    pillow: ModuleType,
) -> "PIL.Image.Image":
    """16-bit grey in mode `L`, or in `LA` where a colour is transparent.

    Args:
        image: an image of Pillow.
        scale: see `_grey_scale`.
        transparent: see `_transparent_colour`.
        pillow: the module.
    """
    values = np.asarray(image).astype(np.int64)
    highest = max(scale)
    from_black = np.abs(values - scale[0]).clip(0, highest)
    grey = ((from_black * 255 + highest // 2) // highest).astype(np.uint8)
    if transparent is None:
        return pillow.fromarray(grey)
    alpha = np.where(values == transparent, 0, 255).astype(np.uint8)
    return pillow.merge("LA", (pillow.fromarray(grey), pillow.fromarray(alpha)))


def _converted(image: "PIL.Image.Image", channels: int, pillow: ModuleType) -> "PIL.Image.Image":
    """An image in mode `L` or `RGB`.

    Args:
        image: an image of Pillow.
        channels: 1 or 3.
        pillow: the module.

    Raises:
        DecodeError: if the values have no known range.
    """
    if image.mode in ("I", "F"):
        raise DecodeError(
            "its pixels are 32-bit or signed numbers, of which it does not say what is white: save "
            "it with 8 or 16 bits."
        )
    if image.mode == "La":
        # Pillow has only this conversion from premultiplied grey.
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = pillow.new("RGBA", image.size, "white")
        # Drops alpha, which is full everywhere now.
        image = pillow.alpha_composite(white, image).convert("RGB")
    if image.mode != "L":
        # Also for grey, so that images checked in colour are later converted the same way.
        image = image.convert("RGB")
    return image.convert("L" if channels == 1 else "RGB")
