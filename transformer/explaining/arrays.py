"""The arrays of a page: stored with few bits, one after another in one blob."""

import base64
import hashlib
from typing import Any

import numpy as np

# Offsets are multiples of this, so that a browser can look at the bytes as any type.
_ALIGNED = 8
_LARGEST_HALF = float(np.finfo(np.float16).max)


class Arrays:
    """Collects arrays; equal ones are stored once.

    A value is `zero + scale * stored`. Methods return the id of the array.
    """

    def __init__(self) -> None:
        self.described: dict[str, dict[str, Any]] = {}
        self._parts: list[bytes] = []
        self._size = 0
        self._known: dict[bytes, str] = {}

    def exact(self, x: Any, dtype: str = "float32") -> str:
        """Stores an array as it is: `float32`, `int32` or `uint8`."""
        return self._put(np.asarray(x).astype(dtype))

    def half(self, x: np.ndarray) -> str:
        """Stores numbers with 11 significant bits; exactly, if they are too large for that."""
        x = np.asarray(x, np.float32)
        finite = x[np.isfinite(x)]
        large = finite.size and float(np.abs(finite).max()) > _LARGEST_HALF
        return self._put(x if large else x.astype(np.float16))

    def shares(self, x: np.ndarray) -> str:
        """Stores numbers from 0 to 1 as multiples of 1/255."""
        stored = np.rint(np.clip(x, 0.0, 1.0) * 255.0).astype(np.uint8)
        return self._put(stored, 1.0 / 255.0)

    def rows(self, x: np.ndarray) -> str:
        """Stores numbers as multiples of 1/127 of the largest one of their row."""
        x = np.asarray(x, np.float32)
        if not np.isfinite(x).all():
            return self._put(x)
        scale = np.abs(x).max(-1) / np.float32(127.0)
        divisor = np.where(scale == 0.0, np.float32(1.0), scale)
        return self._put(np.rint(x / divisor[..., None]).astype(np.int8), self.exact(scale))

    def _put(self, x: np.ndarray, scale: float | str = 1.0) -> str:
        data = np.ascontiguousarray(x, x.dtype.newbyteorder("<")).tobytes()
        key = hashlib.sha256(f"{x.dtype} {x.shape} {scale} ".encode() + data).digest()
        if key not in self._known:
            name = self._known[key] = str(len(self.described))
            self.described[name] = {
                "dtype": x.dtype.name,
                "shape": list(x.shape),
                "offset": self._size,
                "scale": scale,
                "zero": 0.0,
            }
            data += b"\0" * (-len(data) % _ALIGNED)
            self._parts.append(data)
            self._size += len(data)
        return self._known[key]

    def base64(self) -> str:
        """All bytes, in the order of their offsets."""
        return base64.b64encode(b"".join(self._parts)).decode("ascii")


def stored(described: dict[str, dict[str, Any]], blob: bytes, name: str) -> np.ndarray:
    """Reads an array back as a page does, in float64 (ids in their own type).

    Args:
        described: `Arrays.described`.
        blob: the bytes of `Arrays.base64`.
        name: the id of the array.
    """
    about = described[name]
    dtype = np.dtype(about["dtype"]).newbyteorder("<")
    count = int(np.prod(about["shape"], dtype=np.int64))
    x = np.frombuffer(blob, dtype, count, about["offset"]).reshape(about["shape"])
    if about["scale"] == 1.0:
        return x
    scale = about["scale"]
    if isinstance(scale, str):
        scale = stored(described, blob, scale).astype(np.float64)[..., None]
    return about["zero"] + scale * x.astype(np.float64)
