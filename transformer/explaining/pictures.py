"""Images inside a page."""

import base64
import struct
import zlib

import numpy as np
from jaxtyping import UInt8


def png_address(pixels: UInt8[np.ndarray, "Y X C"]) -> str:
    """An image as an address that holds all of its bytes.

    Args:
        pixels: grey, C = 1, or RGB, C = 3.
    """
    return f"data:image/png;base64,{base64.b64encode(png(pixels)).decode('ascii')}"


def png(pixels: UInt8[np.ndarray, "Y X C"]) -> bytes:
    """An image as a PNG file, made without a library (PNG, third edition, sections 5 to 11)."""
    height, width, channels = pixels.shape
    rows = np.zeros((height, 1 + width * channels), np.uint8)
    rows[:, 1:] = pixels.reshape(height, -1)
    colour = {1: 0, 3: 2}[channels]
    about = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    parts = ((b"IHDR", about), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
