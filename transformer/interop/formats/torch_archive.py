"""Arrays in archives of `torch.save`, such as `pytorch_model.bin`.

An archive is a zip file: `data/KEY` holds the numbers of a storage, and `data.pkl` says which
tensor is which part of which storage. Nothing is unpickled; see `torch_pickle`.
"""

import contextlib
import math
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from transformer.data.reading import bounds
from transformer.data.reading.json_text import shown
from transformer.errors import DataError
from transformer.interop.formats.safetensors import shards
from transformer.interop.formats.torch_pickle import Tensor, state_dict
from transformer.interop.layout import Stored

ARCHIVE, ARCHIVE_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"


def archives(folder: Path) -> list[Path]:
    """The archives that hold a model: one, or those that an index names; none without them."""
    if (folder / ARCHIVE).is_file():
        return [folder / ARCHIVE]
    return shards(folder / ARCHIVE_INDEX) if (folder / ARCHIVE_INDEX).is_file() else []


class TorchArrays(Stored):
    """The tensors of one or several archives, each read on access."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Reads which tensors there are.

        Raises:
            DataError: if a file is missing, damaged, or holds anything but a dict of tensors.
        """
        self._found: dict[str, tuple[Path, zipfile.ZipInfo, Tensor]] = {}
        for file in files:
            for name, (entry, tensor) in _tensors(file).items():
                if name in self._found:
                    raise DataError(f"{file} has the array {shown(name)} of another file.")
                self._found[name] = file, entry, tensor

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an array, without reading the array."""
        return self._found[name][2].shape

    def __getitem__(self, name: str) -> np.ndarray:
        file, entry, (storage, offset, shape, strides) = self._found[name]
        with _opened(file) as archive:
            numbers = np.frombuffer(archive.read(entry), storage.dtype)[offset:]
        steps = [stride * storage.dtype.itemsize for stride in strides]
        return np.lib.stride_tricks.as_strided(numbers, shape, steps).copy()

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[zipfile.ZipFile]:
    """Opens an archive; inside `with`, errors of the library become errors of ours."""
    try:
        with zipfile.ZipFile(file) as archive:
            yield archive
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:
        raise DataError(f"{file} cannot be read as an archive of torch.save: {error}") from None


def _tensors(file: Path) -> dict[str, tuple[zipfile.ZipInfo, Tensor]]:
    """The tensors of an archive, each with the entry that holds its numbers."""
    with _opened(file) as archive:
        # Archives are not compressed, and so no entry is larger than the file.
        entries = {info.filename: info for info in archive.infolist() if not info.compress_type}
        pickles = [name for name in entries if PurePosixPath(name).name == "data.pkl"]
        if len(pickles) != 1 or entries[pickles[0]].file_size > bounds.PICKLE_BYTES:
            raise ValueError("it needs one data.pkl, not compressed and not too large")
        top = PurePosixPath(pickles[0]).parent
        order = str(top / "byteorder")
        if order in entries and archive.read(order) != b"little":
            raise ValueError("its numbers are not little-endian")
        found = {}
        for name, tensor in state_dict(archive.read(pickles[0])).items():
            entry = entries.get(str(top / "data" / tensor.storage.key))
            if entry is None or not _fits(tensor, entry.file_size):
                raise ValueError(f"{shown(name)} lies outside of its numbers")
            found[name] = entry, tensor
        return found


def _fits(tensor: Tensor, num_bytes: int) -> bool:
    """Whether a tensor lies within its storage and has no more numbers than that."""
    storage, offset, shape, strides = tensor
    used = [(size - 1) * stride for size, stride in zip(shape, strides, strict=True)]
    inside = 0 in shape or offset + sum(used) < storage.count
    held = storage.count * storage.dtype.itemsize <= num_bytes
    return inside and held and len(shape) <= bounds.AXES and math.prod(shape) <= storage.count
