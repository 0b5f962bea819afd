"""GGUF, the file format of llama.cpp: metadata by name, and quantized arrays.

The format is described in https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Files are not
trusted: every number in them is compared with the length of the file before it is used.
"""

import math
import mmap
import struct
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from transformer.data.reading import bounds
from transformer.errors import DataError
from transformer.interop.formats.gguf_blocks import BLOCKS, dequantize

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_ALIGNMENT = 32
_MAX_AXES = 4
# Bytes of the shortest entries: metadata (name, kind, value) and arrays (name, number of axes, one
# axis, kind, place).
_SHORTEST_ENTRY = 8 + 4 + 1
_SHORTEST_TENSOR = 8 + 4 + 8 + 4 + 8

# Kinds of metadata, as format letters of `struct`.
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}
_NUMBERS[12] = "d"
_FLOAT32, _TEXT, _LIST = 6, 8, 9

# Names of the kinds of arrays, for messages.
_KIND_NAMES = dict(
    enumerate(
        [
            "F32",
            "F16",
            "Q4_0",
            "Q4_1",
            "Q4_2",
            "Q4_3",
            "Q5_0",
            "Q5_1",
            "Q8_0",
            "Q8_1",
            "Q2_K",
            "Q3_K",
            "Q4_K",
            "Q5_K",
            "Q6_K",
            "Q8_K",
            "IQ2_XXS",
            "IQ2_XS",
            "IQ3_XXS",
            "IQ1_S",
            "IQ4_NL",
            "IQ3_S",
            "IQ2_S",
            "IQ4_XS",
            "I8",
            "I16",
            "I32",
            "I64",
            "F64",
            "IQ1_M",
            "BF16",
        ]
    )
)

_Kind = TypeVar("_Kind", str, int, float, bool, list)


class Tensor(NamedTuple):
    """Where an array lies in a file.

    Attributes:
        shape: the shape in NumPy's order; the file has the reverse.
        kind: the name of its kind, a key of `BLOCKS`.
        start: its first byte in the file.
    """

    shape: tuple[int, ...]
    kind: str
    start: int


class GgufFile(NamedTuple):
    """The header of a file.

    Attributes:
        path: the path of the file.
        metadata: numbers, strings, flags and lists of them, by name.
        tensors: arrays by name.
    """

    path: Path
    metadata: dict[str, object]
    tensors: dict[str, Tensor]

    def field(self, name: str, kind: type[_Kind]) -> _Kind | None:
        """Metadata by name, of a given type; None if missing.

        Raises:
            DataError: if it has another type.
        """
        value = self.metadata.get(name)
        if value is None:
            return None
        # A flag is also an int, but not meant as one.
        if not isinstance(value, kind) or type(value) is not kind:
            raise DataError(
                f"{self.path}: its metadata say {str(value)[:60]!r} for {name}, which must be of "
                f"the kind {kind.__name__}."
            )
        return value

    def needed(self, name: str, kind: type[_Kind]) -> _Kind:
        """Required metadata by name, of a given type.

        Raises:
            DataError: if it is missing or has another type.
        """
        value = self.field(name, kind)
        if value is None:
            raise DataError(f"{self.path}: its metadata lack {name}.")
        return value

    def read(self, name: str) -> np.ndarray:
        """Reads a single array as float32.

        Raises:
            DataError: if the file has been truncated meanwhile.
        """
        tensor = self.tensors[name]
        count = _num_bytes(tensor)
        try:
            raw = np.memmap(self.path, np.uint8, "r", offset=tensor.start, shape=(count,))
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path}: {name} cannot be read: {error}.") from None
        return dequantize(tensor.kind, raw).reshape(tensor.shape)


def read_gguf_file(path: str | Path) -> GgufFile:
    """Reads everything but the arrays.

    Raises:
        DataError: if it is missing, damaged or unsupported.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
            if magic != _MAGIC:
                raise DataError(f"{path} is no GGUF file: it begins with {magic!r}, not 'GGUF'.")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return _read(_Header(content, path))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None


class _Header:
    """Reads the header of a file piece by piece."""

    def __init__(self, content: mmap.mmap, path: Path) -> None:
        self.path = path
        self.size = len(content)
        self.position = len(_MAGIC)
        self._content = content

    def take(self, count: int, what: str) -> bytes:
        """The next bytes."""
        if count > self.size - self.position:
            raise DataError(
                f"{self.path} is truncated: {what} at byte {self.position} takes {count} bytes, "
                f"and the file has {self.size} in all."
            )
        self.position += count
        return self._content[self.position - count : self.position]

    def number(self, letter: str, what: str) -> int:
        """The next whole number, given its `struct` letter."""
        return int(self._numbers(letter, 1, what)[0])

    def _numbers(self, letter: str, count: int, what: str) -> tuple[int | float | bool, ...]:
        """The next numbers of one kind."""
        layout = f"<{count}{letter}"
        return struct.unpack(layout, self.take(struct.calcsize(layout), what))

    def count(self, shortest: int, what: str, most: int = bounds.TOKENS) -> int:
        """The number of entries that follow, each of at least `shortest` bytes."""
        count = self.number("Q", f"the number of {what}")
        if count * shortest > self.size - self.position:
            raise DataError(
                f"{self.path} is damaged: it claims {count} {what}, for which its {self.size} "
                f"bytes are too few."
            )
        if count > most:
            raise DataError(f"{self.path} has {count:,} {what}: at most {most:,}.")
        return count

    def text(self, what: str) -> str:
        """The next string, which follows its length."""
        content = self.take(self.number("Q", f"the length of {what}"), what)
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            raise DataError(
                f"{self.path} is damaged: {what} before byte {self.position} is not UTF-8."
            ) from None

    def value(self, kind: int, name: str) -> object:
        """The next value of metadata."""
        if kind == _TEXT:
            return self.text(f"the text of {name}")
        if kind == _LIST:
            return self._list(name)
        (value,) = self._numbers(self._letter(kind, name), 1, f"the value of {name}")
        # Restores the intended decimal number: 1e-05, not 9.999999747378752e-06.
        return float(str(np.float32(value))) if kind == _FLOAT32 else value

    def _list(self, name: str) -> list[str] | list[int | float | bool]:
        kind = self.number("I", f"the kind of the list {name}")
        if kind == _TEXT:
            count = self.count(8, f"texts of {name}")
            return [self.text(f"a text of {name}") for _ in range(count)]
        letter = self._letter(kind, name)
        count = self.count(struct.calcsize(f"<{letter}"), f"numbers of {name}")
        return list(self._numbers(letter, count, f"the list {name}"))

    def _letter(self, kind: int, name: str) -> str:
        if kind not in _NUMBERS:
            raise DataError(
                f"{self.path}: the metadata {name} are of the kind {kind}, which is not known."
            )
        return _NUMBERS[kind]


def _read(header: _Header) -> GgufFile:
    path = header.path
    version = header.number("I", "the version")
    if version not in _VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
        also = " It was written for big-endian machines." if swapped in _VERSIONS else ""
        raise DataError(
            f"{path} is GGUF of version {version}: versions {_VERSIONS[0]} and {_VERSIONS[1]} are "
            f"read.{also}"
        )
    # Both counts precede both lists.
    num_tensors = header.count(_SHORTEST_TENSOR, "arrays", bounds.ARRAYS)
    num_entries = header.count(_SHORTEST_ENTRY, "metadata", bounds.ARRAYS)
    metadata: dict[str, object] = {}
    for _ in range(num_entries):
        name = header.text("a name of metadata")
        if name in metadata:
            raise DataError(f"{path} is damaged: it has the metadata {name!r} twice.")
        metadata[name] = header.value(header.number("I", f"the kind of {name}"), name)
    tensors: dict[str, Tensor] = {}
    for _ in range(num_tensors):
        name = header.text("a name of an array")
        if name in tensors:
            raise DataError(f"{path} is damaged: it has the array {name!r} twice.")
        tensors[name] = _tensor(header, name)
    return GgufFile(path, metadata, _placed(tensors, metadata, header))


def _tensor(header: _Header, name: str) -> Tensor:
    """An array whose offset is still relative to the end of the header."""
    num_axes = header.number("I", f"the number of axes of {name}")
    if not 1 <= num_axes <= _MAX_AXES:
        raise DataError(
            f"{header.path} is damaged: {name} has {num_axes} axes, from 1 to {_MAX_AXES} expected."
        )
    shape = tuple(header.number("Q", f"the shape of {name}") for _ in range(num_axes))[::-1]
    if not min(shape):
        raise DataError(f"{header.path} is damaged: {name} has the shape {list(shape)}.")
    number = header.number("I", f"the kind of {name}")
    kind = _KIND_NAMES.get(number, str(number))
    if kind not in BLOCKS:
        raise DataError(
            f"{header.path}: {name} is of the kind {kind}: known are {', '.join(BLOCKS)}. Get the "
            f"model in one of them, such as Q8_0."
        )
    if shape[-1] % BLOCKS[kind][0]:
        raise DataError(
            f"{header.path} is damaged: {name} has rows of {shape[-1]}, and {kind} comes in blocks "
            f"of {BLOCKS[kind][0]}."
        )
    return Tensor(shape, kind, header.number("Q", f"the place of {name}"))


def _placed(
    tensors: dict[str, Tensor], metadata: dict[str, object], header: _Header
) -> dict[str, Tensor]:
    """Converts the offsets of arrays to positions in the file."""
    alignment = metadata.get("general.alignment", _ALIGNMENT)
    if type(alignment) is not int or alignment < 1:
        raise DataError(f"{header.path} is damaged: its general.alignment is {alignment!r}.")
    start = -(-header.position // alignment) * alignment
    placed = {name: item._replace(start=start + item.start) for name, item in tensors.items()}
    for name, item in placed.items():
        end = item.start + _num_bytes(item)
        if end > header.size:
            raise DataError(
                f"{header.path} is truncated: {name} ends at byte {end}, and the file has "
                f"{header.size}."
            )
    # Without this check a small file could claim any number of large arrays.
    ends, before = 0, ""
    for name, item in sorted(placed.items(), key=lambda found: found[1].start):
        if item.start < ends:
            raise DataError(f"{header.path} is damaged: {before} and {name} share bytes.")
        ends, before = item.start + _num_bytes(item), name
    return placed


def _num_bytes(tensor: Tensor) -> int:
    count, num_bytes, _ = BLOCKS[tensor.kind]
    return math.prod(tensor.shape) // count * num_bytes
