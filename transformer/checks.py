"""What folders are checked for, with one wording."""

import os
from pathlib import Path

from transformer.errors import WorkdirError


def require_writable_folder(path: Path, flag: str = "--workdir") -> None:
    """Refuses the path of a folder that cannot be made, or cannot be written into.

    Args:
        path: of the folder, which may be missing.
        flag: that gives it.

    Raises:
        WorkdirError: naming what stands in the way.
    """
    for place in (path.absolute(), *path.absolute().parents):
        try:
            # A link that leads nowhere is there, and nothing can be made in its place.
            place.lstat()
            place.stat()
        except NotADirectoryError:
            continue
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not place.is_symlink():
                continue
            raise WorkdirError(
                f"{place} cannot be a folder: {error.strerror}. Give another {flag}."
            ) from None
        if not place.is_dir():
            raise WorkdirError(f"{place} is a file, not a folder: give another {flag}.")
        if not os.access(place, os.W_OK | os.X_OK):
            raise WorkdirError(f"{place} cannot be written: give another {flag}.")
        return
