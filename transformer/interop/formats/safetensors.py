"""Arrays in safetensors files, which contain data only, no code."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Protocol, runtime_checkable

import jax
import numpy as np

from transformer.data.reading import bounds
from transformer.data.reading.json_text import parse_json, shown
from transformer.data.reading.text import decode_text
from transformer.errors import DataError, MissingDependencyError, WorkdirError
from transformer.files import replacing_by_path
from transformer.interop.checked_values import is_inside
from transformer.interop.layout import Stored
from transformer.interop.side_files import read_json

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
MODEL_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"


def read_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    """Reads all arrays of a file, or of a folder with a model in one or several files.

    Numbers in half precision become float32, the dtype of our parameters; that loses nothing.

    Raises:
        MissingDependencyError: if the library is not installed.
        DataError: if there is no such file, or it is damaged or not a safetensors file.
    """
    return {name: _widened(array) for name, array in StoredArrays(path).items()}


@runtime_checkable
class _Slice(Protocol):
    """An array that has not been read."""

    def get_shape(self) -> list[int]: ...


@runtime_checkable
class _OpenFile(Protocol):
    """An open file of the library."""

    def keys(self) -> list[str]: ...

    def get_slice(self, name: str) -> _Slice: ...

    def get_tensor(self, name: str) -> np.ndarray: ...


class StoredArrays(Stored):
    """The arrays of a model in one or several files."""

    def __init__(self, path: str | Path) -> None:
        """Reads the names and shapes.

        Args:
            path: a file, or a folder with a model.

        Raises:
            MissingDependencyError: if the library is not installed.
            DataError: if there is no such file, or it is damaged or not a safetensors file.
        """
        self._files: dict[str, Path] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        for file in _files(Path(path)):
            _require_header(file)
            with _opened(file) as arrays:
                for name in arrays.keys():  # noqa: SIM118 - not a dict.
                    if name in self._files:
                        raise DataError(
                            f"{path} has the array {shown(name)} twice, in "
                            f"{self._files[name].name} and {file.name}."
                        )
                    self._files[name] = file
                    self._shapes[name] = tuple(arrays.get_slice(name).get_shape())

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an array, without reading the array."""
        return self._shapes[name]

    def __getitem__(self, name: str) -> np.ndarray:
        # Reopened each time: pages read from an open file count as memory in use.
        with _opened(self._files[name]) as arrays:
            return arrays.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def write_safetensors(
    arrays: Mapping[str, np.ndarray | jax.Array],
    path: str | Path,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes arrays by name.

    Args:
        arrays: what to write.
        path: the file to write; it is replaced atomically.
        metadata: short texts to store with the arrays.

    Raises:
        MissingDependencyError: if the library is not installed.
        WorkdirError: if it cannot be written.
    """
    numpy_format = _library()
    from safetensors import SafetensorError

    path = Path(path)
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    with replacing_by_path(path) as part:
        try:
            numpy_format.save_file(contiguous, part, metadata=dict(metadata or {}))
        except SafetensorError as error:
            raise WorkdirError(f"{path} cannot be written: {error}") from None


def read_metadata(path: str | Path) -> dict[str, str]:
    """Reads the short texts stored with the arrays of a file.

    Raises:
        MissingDependencyError: if the library is not installed.
        DataError: if there is no such file, or it is not a safetensors file.
    """
    file, *others = _files(Path(path))
    if others:
        raise DataError(f"{path} holds several files: give one of them.")
    _library()
    import safetensors

    try:
        with safetensors.safe_open(file, framework="numpy") as opened:
            return dict(opened.metadata() or {})
    except (safetensors.SafetensorError, OSError) as error:
        raise DataError(f"{file} cannot be read as safetensors: {error}") from None


def _library() -> ModuleType:
    try:
        import safetensors.numpy
    except ImportError:
        raise MissingDependencyError(
            "safetensors", "interop", "reading or writing safetensors files"
        ) from None
    return safetensors.numpy


def _files(path: Path) -> list[Path]:
    """The files that hold a model."""
    if not path.is_dir():
        if path.suffix in _PICKLES:
            raise DataError(
                f"{path} is a pickle, which can run any code when it is read: give a .safetensors "
                f"file."
            )
        if not path.is_file():
            raise DataError(f"{path} does not exist: give a .safetensors file or its folder.")
        return [path]
    if (path / MODEL_FILE).is_file():
        return [path / MODEL_FILE]
    if (path / INDEX_FILE).is_file():
        return shards(path / INDEX_FILE)
    pickles = [file.name for file in path.iterdir() if file.suffix in _PICKLES]
    also = f" Its pickles ({', '.join(sorted(pickles))}) are not read." if pickles else ""
    raise DataError(f"{path} has no {MODEL_FILE}.{also}")


def shards(index: Path) -> list[Path]:
    """The files that an index names.

    Raises:
        DataError: if it is damaged, or names a file outside of its folder.
    """
    content = read_json(index)
    files = content.get("weight_map")
    if not isinstance(files, dict) or not files:
        raise DataError(f"{index} is damaged: its weight_map names no files.")
    for name in files.values():
        # Names in a downloaded file must not point outside its folder.
        if (
            not isinstance(name, str)
            or name in ("", "..")
            or Path(name).name != name
            or not is_inside(name)
        ):
            raise DataError(f"{index} names the file {shown(name)}, which is none of its folder.")
    return [index.parent / name for name in sorted(set(files.values()))]


def _require_header(file: Path) -> None:
    """Refuses damaged headers that the library would accept.

    One example is a duplicate name, of which the library takes the last.

    Raises:
        DataError: if it is damaged.
    """
    try:
        with file.open("rb") as opened:
            start = opened.read(8)
            size = int.from_bytes(start, "little")
            if len(start) < 8 or size > bounds.HEADER_BYTES:
                raise DataError(
                    f"{file} cannot be read as safetensors: its header has {size} bytes."
                )
            text = opened.read(size)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.") from None
    content = parse_json(decode_text(text, str(file)), file)
    if not isinstance(content, dict) or len(content) > bounds.ARRAYS:
        raise DataError(f"{file} cannot be read as safetensors: its header names no arrays.")
    for name, array in content.items():
        shape = array.get("shape", ()) if isinstance(array, dict) else ()
        if isinstance(shape, list) and len(shape) > bounds.AXES:
            raise DataError(f"{file}: {shown(name)} has {len(shape)} axes: at most {bounds.AXES}.")


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[_OpenFile]:
    """Opens a file; inside `with`, errors of the library become errors of ours."""
    _library()
    import ml_dtypes  # noqa: F401 - registers bfloat16 with NumPy.
    import safetensors

    try:
        # JAX arrays would truncate 64-bit numbers to 32 bits.
        with safetensors.safe_open(file, framework="numpy") as arrays:
            yield arrays
    except (safetensors.SafetensorError, OSError) as error:
        raise DataError(f"{file} cannot be read as safetensors: {error}") from None
    except (AttributeError, TypeError) as error:
        raise DataError(f"{file} holds numbers of a kind that is not read here: {error}.") from None


def _widened(array: np.ndarray) -> np.ndarray:
    half = array.dtype.name in ("float16", "bfloat16")
    return array.astype(np.float32) if half else array
