"""Arrays in NumPy's `.npz` files, none of which may hold Python objects."""

import contextlib
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from transformer.data.reading import bounds
from transformer.data.reading.content import require_worth
from transformer.errors import DataError

# The first bytes of a single array.
_ARRAY = b"\x93NUMPY"


@contextlib.contextmanager
def opened_npz(path: Path, what: str) -> Iterator[np.lib.npyio.NpzFile]:
    """Opens a file; its arrays are read when they are asked for.

    Args:
        path: the file.
        what: what it should hold, for messages.

    Raises:
        DataError: if it is missing, damaged, or no such file.
    """
    # Python 2 wrote headers that NumPy reads with a warning.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # NumPy would leave a damaged file open.
            with path.open("rb") as file:
                if file.read(len(_ARRAY)) == _ARRAY:
                    raise DataError(
                        f"{path} is no .npz file but a single array: save {what} with numpy.savez."
                    )
                # NumPy treats a file that is no archive as a pickle.
                if not zipfile.is_zipfile(file):
                    raise DataError(f"{path} is no .npz file, or a damaged one.")
                file.seek(0)
                with np.load(file, allow_pickle=False, max_header_size=bounds.NPY_HEADER) as opened:
                    yield opened
        except DataError:
            raise
        # A damaged file makes NumPy and its libraries raise almost anything.
        except Exception as error:
            raise DataError(f"{path} is no .npz file, or a damaged one: {_short(error)}") from None


def npz_array(path: Path, key: str, what: str, instead: str) -> np.ndarray:
    """One array of a file.

    Args:
        path: the file.
        key: the name of the array.
        what: what the file should hold, for messages.
        instead: what to do if the array is of Python objects, a sentence for the message.

    Raises:
        DataError: if it cannot be read, is no array of numbers or text, or would expand far beyond
            the size of the file.
    """
    with opened_npz(path, what) as arrays:
        where = f"{path}: {key!r}"
        unpacked = sum(
            part.file_size for part in arrays.zip.infolist() if part.filename in (key, f"{key}.npy")
        )
        hint = "if it is meant, save it with numpy.savez, which does not compress"
        require_worth(unpacked, path.stat().st_size, where, hint)
        try:
            array = arrays[key]
        except Exception as error:
            if "allow_pickle" not in str(error):
                raise DataError(f"{where} cannot be read: {_short(error)}") from None
            raise DataError(
                f"{where} is an array of Python objects, which are pickles and not read: reading "
                f"one can run any program. {instead}"
            ) from None
    if not isinstance(array, np.ndarray):
        raise DataError(f"{where} is no array of NumPy.")
    return array


def _short(error: Exception) -> str:
    """The first line of a message: some go on with the content of the file."""
    return (str(error) or type(error).__name__).split("\n")[0][:200]
