"""Converts errors of the library `tokenizers` to our own.

It raises bare `Exception` for input that it cannot use. On unforeseen damage of a file its Rust
code panics, and a panic is not an `Exception`: catching only those would end in a traceback.
"""

import contextlib
from collections.abc import Iterator

from transformer.errors import DataError, UserError


class PanicError(DataError):
    """The library has panicked."""


@contextlib.contextmanager
def in_our_words(what: str) -> Iterator[None]:
    """Raises whatever the library raises as a `DataError`.

    Args:
        what: the problem to report, with the name of the file.

    Raises:
        PanicError: if it panics.
        DataError: if it raises anything else that is no error of memory.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        raise DataError(f"{what}: {_short(error)}") from None
    except BaseException as error:
        if not is_panic(error):
            raise
        raise PanicError(f"{what}: the library fails on it ({_short(error)})") from None


def is_panic(error: BaseException) -> bool:
    """Whether a library that is written in Rust has panicked."""
    # Each such library has its own class for it, and none can be imported.
    return type(error).__name__ == "PanicException"


def _short(error: BaseException, most: int = 300) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= most else f"{text[:most]}..."
