"""Text from the user's files."""

import gzip
import zlib
from pathlib import Path

from transformer.errors import DataError

# The first bytes of a gzip file.
_GZIP = b"\x1f\x8b"


def read_text(path: str | Path) -> str:
    """A UTF-8 text file, plain or gzip.

    Raises:
        DataError: if it is missing, not a file, empty, or not UTF-8 (the byte's place is named).
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path} does not exist: give the path of a text file.") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder: give the path of a text file.") from None
    except PermissionError:
        raise DataError(f"{path} cannot be read: permission denied.") from None
    if content.startswith(_GZIP):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path} is a damaged gzip file: {error}") from None
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text: byte {error.start} is 0x{content[error.start]:02x}. "
            f"Convert it first, for example with: iconv -f latin1 -t utf-8"
        ) from None
    if not text.strip():
        raise DataError(f"{path} is empty: there is nothing to learn from.")
    return text


def split_text(text: str, validation_fraction: float) -> tuple[str, str]:
    """The first part of a text for training and its last `validation_fraction` for validation."""
    cut = round(len(text) * (1.0 - validation_fraction))
    return text[:cut], text[cut:]
