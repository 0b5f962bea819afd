"""CTranslate2's `model.bin`: named arrays one after another, some of them quantised.

The layout is that of version 6, which its converters have written since 2022
(https://github.com/OpenNMT/CTranslate2, `python/ctranslate2/specs/model_spec.py`): the version, the
name of the specification and its revision; the number of arrays, then each with its name, shape,
kind, number of bytes and bytes; the number of aliases, then each with its name and that of its
array. Strings follow their length in 16 bits and end with a zero; numbers are little-endian.

Files are not trusted: every number in them is compared with the length of the file before it is
used.
"""

import math
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from transformer.data.reading import bounds
from transformer.data.reading.json_text import shown
from transformer.errors import DataError

_VERSION = 6
# Kinds of numbers by their code in the file. NumPy has no bfloat16: its 16 bits are the upper half
# of a float32.
_KINDS = ("float32", "int8", "int16", "int32", "float16", "bfloat16")
_SIZES = {"float32": 4, "int8": 1, "int16": 2, "int32": 4, "float16": 2, "bfloat16": 2}
# Bytes of the shortest array (name, number of axes, kind, number of bytes) and alias (two names).
_SHORTEST_ARRAY, _SHORTEST_ALIAS = 3 + 1 + 1 + 4, 3 + 3
# Names of arrays have some 60 characters.
_NAME_BYTES = 1024
_SCALE = "_scale"


class Tensor(NamedTuple):
    """Where an array lies in the file.

    Attributes:
        shape: its shape.
        kind: one of `float32`, `int8`, `int16`, `int32`, `float16`, `bfloat16`.
        start: its first byte in the file.
    """

    shape: tuple[int, ...]
    kind: str
    start: int


class CTranslate2File(NamedTuple):
    """The header of a file.

    Attributes:
        path: the file.
        specification: what model it is, such as `WhisperSpec`.
        revision: the version of that specification.
        tensors: arrays by name; an alias has the array that it stands for.
        originals: the name under which an array is stored, by name.
    """

    path: Path
    specification: str
    revision: int
    tensors: dict[str, Tensor]
    originals: dict[str, str]

    def number(self, name: str) -> int | float | None:
        """A single number by its name; None if there is none. Flags are the int 0 or 1.

        Raises:
            DataError: if it is an array.
        """
        tensor = self.tensors.get(name)
        if tensor is None:
            return None
        if tensor.shape:
            raise DataError(f"{self.path}: {name} has the shape {list(tensor.shape)}: one number.")
        return self._plain(name, 0, None).reshape(()).item()

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """An array as float32, or some of its rows; quantised ones are divided by their scales.

        Args:
            name: its name.
            start: the first row.
            stop: the row after the last; None for all that follow.

        Raises:
            DataError: if its scale is missing or unusable, or the file has changed meanwhile.
        """
        values = self._plain(name, start, stop)
        kind = self.tensors[name].kind
        if kind not in ("int8", "int16"):
            return values.astype(np.float32)
        # An alias has no scale of its own.
        scale_name = self.originals[name] + _SCALE
        if scale_name not in self.tensors:
            raise DataError(f"{self.path} is damaged: {name} is {kind} and lacks its {scale_name}.")
        scale = self._scales(name, scale_name)
        if scale.ndim:
            scale = scale[start:stop].reshape(-1, *[1] * (values.ndim - 1))
        return values.astype(np.float32) / scale

    def _scales(self, name: str, scale_name: str) -> np.ndarray:
        """The divisor of each row, or of all: `[rows]` or `[]`."""
        tensor, rows = self.tensors[scale_name], self.tensors[name].shape[:1]
        if tensor.shape not in ((), (1,), rows) or tensor.kind[:3] == "int":
            raise DataError(
                f"{self.path} is damaged: {scale_name} is {tensor.kind} of the shape "
                f"{list(tensor.shape)}, and a scale for each of {list(rows)} rows is expected."
            )
        scale = self._plain(scale_name, 0, None).astype(np.float32)
        if not (np.isfinite(scale) & (scale > 0)).all():
            raise DataError(
                f"{self.path} is damaged: {scale_name} has a scale that is not above 0."
            )
        return scale.reshape(()) if tensor.shape != rows else scale

    def _plain(self, name: str, start: int, stop: int | None) -> np.ndarray:
        """Rows as they are stored."""
        shape, kind, place = self.tensors[name]
        rows = range(*slice(start, stop).indices(shape[0])) if shape else range(1)
        row = math.prod(shape[1:]) * _SIZES[kind]
        try:
            with self.path.open("rb") as file:
                file.seek(place + rows.start * row)
                content = file.read(len(rows) * row)
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror}.") from None
        if len(content) != len(rows) * row:
            raise DataError(f"{self.path} has been cut while it was read: {name} is gone.")
        if kind == "bfloat16":
            wide = np.frombuffer(content, "<u2").astype(np.uint32) << 16
            return wide.view(np.float32).reshape(len(rows), *shape[1:])
        dtype = np.dtype(kind).newbyteorder("<")
        return np.frombuffer(content, dtype).reshape(len(rows), *shape[1:])


def read_ctranslate2_file(path: Path) -> CTranslate2File:
    """Reads everything but the arrays.

    Raises:
        DataError: if it is missing, damaged or of another version.
    """
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"{path} is no file.")
        with path.open("rb") as file:
            return _read(_Header(file, path))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None


class _Header:
    """Reads a file piece by piece, and skips the arrays."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.path = path
        self.size = file.seek(0, 2)
        file.seek(0)
        self._file = file

    @property
    def left(self) -> int:
        """Bytes that follow."""
        return self.size - self._file.tell()

    def take(self, count: int, what: str) -> bytes:
        """The next bytes."""
        self.require(count, what)
        return self._file.read(count)

    def require(self, count: int, what: str) -> None:
        """Refuses a file that has fewer bytes left."""
        if count > self.left:
            raise DataError(
                f"{self.path} is truncated: {what} at byte {self._file.tell():,} takes {count:,} "
                f"bytes, and the file has {self.size:,} in all."
            )

    def skip(self, count: int, what: str) -> int:
        """Passes over bytes; returns the place of the first."""
        self.require(count, what)
        self._file.seek(count, 1)
        return self._file.tell() - count

    def number(self, size: int, what: str) -> int:
        """The next whole number, of some bytes."""
        return int.from_bytes(self.take(size, what), "little")

    def count(self, shortest: int, what: str) -> int:
        """The number of entries that follow, each of at least `shortest` bytes."""
        count = self.number(4, f"the number of {what}")
        if count > min(self.left // shortest, bounds.ARRAYS):
            raise DataError(
                f"{self.path} is damaged: it claims {count:,} {what}, for which its {self.size:,} "
                f"bytes are too few."
            )
        return count

    def text(self, what: str) -> str:
        """The next string."""
        count = self.number(2, f"the length of {what}")
        content = self.take(count, what) if count <= _NAME_BYTES else b""
        if not content.endswith(b"\0") or b"\0" in content[:-1] or not content.isascii():
            raise DataError(
                f"{self.path} is damaged: {what} is {shown(content)}, which is no name."
            )
        return content[:-1].decode("ascii")


def _read(header: _Header) -> CTranslate2File:
    path = header.path
    version = header.number(4, "the version")
    if version != _VERSION:
        hint = (
            "Convert the model again, with a version of CTranslate2 from 3 on."
            if version < _VERSION
            else "It may be a pickle or another format: those are not read."
        )
        raise DataError(
            f"{path} is no model of CTranslate2 of version {_VERSION}: it begins with the number "
            f"{version}. {hint}"
        )
    specification = header.text("the name of the specification")
    revision = header.number(4, "the revision")
    tensors: dict[str, Tensor] = {}
    for _ in range(header.count(_SHORTEST_ARRAY, "arrays")):
        name = header.text("the name of an array")
        if name in tensors:
            raise DataError(f"{path} is damaged: it has the array {name} twice.")
        tensors[name] = _tensor(header, name)
    originals = {name: name for name in tensors}
    for _ in range(header.count(_SHORTEST_ALIAS, "aliases")):
        alias, name = header.text("an alias"), header.text("the name of an aliased array")
        if alias in originals or originals.get(name) != name:
            raise DataError(f"{path} is damaged: {alias} cannot stand for {name}.")
        originals[alias] = name
    if header.left:
        raise DataError(f"{path} is damaged: {header.left:,} bytes follow its end.")
    tensors |= {alias: tensors[name] for alias, name in originals.items()}
    return CTranslate2File(path, specification, revision, tensors, originals)


def _tensor(header: _Header, name: str) -> Tensor:
    """The next array, whose bytes are skipped."""
    num_axes = header.number(1, f"the number of axes of {name}")
    if num_axes > bounds.AXES:
        raise DataError(
            f"{header.path} is damaged: {name} has {num_axes} axes, and at most {bounds.AXES} are "
            f"read."
        )
    shape = tuple(header.number(4, f"the shape of {name}") for _ in range(num_axes))
    code = header.number(1, f"the kind of {name}")
    if code >= len(_KINDS):
        raise DataError(
            f"{header.path}: {name} is of the kind {code}: known are {', '.join(_KINDS)}."
        )
    kind = _KINDS[code]
    count = header.number(4, f"the number of bytes of {name}")
    if 0 in shape or count != math.prod(shape) * _SIZES[kind]:
        raise DataError(
            f"{header.path} is damaged: {name} has {count:,} bytes, and the shape {list(shape)} of "
            f"{kind}."
        )
    return Tensor(shape, kind, header.skip(count, name))
