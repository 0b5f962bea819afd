"""Number formats of GGUF files: blocks of numbers with few bits, and a scale for each block.

Blocks are described in https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h.
"""

from collections.abc import Callable

import numpy as np


def dequantize(kind: str, raw: np.ndarray) -> np.ndarray:
    """Decodes the numbers of an array.

    Args:
        kind: a key of `BLOCKS`.
        raw: the bytes of whole blocks.

    Returns:
        The float32 numbers of all blocks, on one axis.
    """
    count, num_bytes, decode = BLOCKS[kind]
    blocks = np.asarray(raw).reshape(-1, num_bytes)
    values = np.empty((len(blocks), count), np.float32)
    decode(blocks, values)
    return values.reshape(-1)


def _float32(blocks: np.ndarray, values: np.ndarray) -> None:
    values[:] = blocks.view("<f4")


def _float16(blocks: np.ndarray, values: np.ndarray) -> None:
    values[:] = blocks.view("<f2")


def _bfloat16(blocks: np.ndarray, values: np.ndarray) -> None:
    # A bfloat16 is the upper half of a float32.
    values.view(np.uint32)[:] = blocks.view("<u2")
    values.view(np.uint32)[:] <<= 16


def _q8_0(blocks: np.ndarray, values: np.ndarray) -> None:
    """A scale in half precision, and 32 signed bytes."""
    values[:] = blocks[:, 2:].view(np.int8)
    values *= _half(blocks, 0)


def _q4_0(blocks: np.ndarray, values: np.ndarray) -> None:
    """A scale in half precision, and 32 numbers of four bits with zero point 8."""
    _nibbles(blocks[:, 2:], values)
    values -= 8
    values *= _half(blocks, 0)


def _q4_1(blocks: np.ndarray, values: np.ndarray) -> None:
    """A scale and the minimum in half precision, and 32 numbers of four bits."""
    _nibbles(blocks[:, 4:], values)
    values *= _half(blocks, 0)
    values += _half(blocks, 2)


def _q6_k(blocks: np.ndarray, values: np.ndarray) -> None:
    """256 numbers of six bits with zero point 32, in two halves of four rows of 32.

    A block holds their lower four bits, their upper two bits, a signed byte for each 16 numbers and
    a scale in half precision; byte times scale is the scale of these 16. Files whose arrays are
    mostly Q4_0 use it for the output layer.
    """
    low, high = blocks[:, :128].reshape(-1, 2, 2, 32), blocks[:, 128:192].reshape(-1, 2, 32)
    rows = values.reshape(-1, 2, 4, 32)
    for row in range(4):
        nibbles = low[:, :, row % 2] >> 4 if row >= 2 else low[:, :, row % 2] & 15
        rows[:, :, row] = nibbles | (high >> 2 * row & 3) << 4
    values -= 32
    scales = _half(blocks, 208) * np.ascontiguousarray(blocks[:, 192:208]).view(np.int8)
    values.reshape(-1, 16, 16)[:] *= scales[:, :, None]


def _nibbles(packed: np.ndarray, values: np.ndarray) -> None:
    """Unpacks half-bytes: first the lower halves of all bytes, then the upper halves."""
    middle = packed.shape[1]
    values[:, :middle] = packed & 15
    values[:, middle:] = packed >> 4


def _half(blocks: np.ndarray, start: int) -> np.ndarray:
    """Reads a half-precision number of each block as float32 `[blocks, 1]`."""
    return np.ascontiguousarray(blocks[:, start : start + 2]).view("<f2").astype(np.float32)


# For each kind: numbers per block, bytes per block, and the decoder.
BLOCKS: dict[str, tuple[int, int, Callable[[np.ndarray, np.ndarray], None]]] = {
    "F32": (1, 4, _float32),
    "F16": (1, 2, _float16),
    "BF16": (1, 2, _bfloat16),
    "Q8_0": (32, 34, _q8_0),
    "Q4_0": (32, 18, _q4_0),
    "Q4_1": (32, 20, _q4_1),
    "Q6_K": (256, 210, _q6_k),
}
