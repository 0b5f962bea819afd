"""Images inside a page."""

import base64
import struct
import zlib

import numpy as np
from jaxtyping import Int, UInt8


def png_address(pixels: UInt8[np.ndarray, "Y X C"]) -> str:
    """An image as an address that holds all of its bytes.

    Args:
        pixels: grey, C = 1, or RGB, C = 3.
    """
    return f"data:image/png;base64,{base64.b64encode(png(pixels)).decode('ascii')}"


# Edges of a square of a board, in points, and how finely stones are drawn.
_SQUARE, _FINE = 40, 4
# Of the squares by turns, and of the stones of the player to move and of the other.
_WOOD = ((222, 196, 150), (206, 176, 128))
_STONES = {1: (28, 46, 92), 2: (240, 236, 226)}


def board_pixels(
    board: Int[np.ndarray, " S"], rows: int, columns: int
) -> UInt8[np.ndarray, "Y X 3"]:
    """A board game's position: dark stones of the player to move, light ones of the other.

    Args:
        board: 0 on empty squares, 1 on those of the player to move, 2 on the other's, row by row.
        rows: of the board.
        columns: of the board.
    """
    places = (np.arange(_SQUARE * _FINE) + 0.5) / (_SQUARE * _FINE) - 0.5
    inside = (np.hypot(*np.meshgrid(places, places)) < 0.38).astype(np.float32)
    stone = inside.reshape(_SQUARE, _FINE, _SQUARE, _FINE).mean(axis=(1, 3))[..., None]
    pixels = np.zeros((rows, _SQUARE, columns, _SQUARE, 3), np.float32)
    for place, piece in enumerate(board):
        row, column = divmod(place, columns)
        square = np.array(_WOOD[(row + column) % 2], np.float32)
        colour = np.array(_STONES[int(piece)], np.float32) if piece else square
        pixels[row, :, column] = square + stone * (colour - square)
    return pixels.reshape(rows * _SQUARE, columns * _SQUARE, 3).round().astype(np.uint8)


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
