"""Compiled programs kept between runs, in files that are whole or made again.

JAX's own files are written in place and never again: one that a kill has cut is read, refused and
compiled anew by every later run, and a flipped bit in one is only noticed if the compression of the
moment has a checksum.
"""

from pathlib import Path
from typing import Any

import jax

from transformer.caches import read_entry, write_entry

# JAX has no public way to keep programs otherwise. Without these names, it keeps them in its own.
try:
    from jax._src import compilation_cache
    from jax._src.compilation_cache_interface import CacheInterface
except ImportError:  # pragma: no cover
    compilation_cache: Any = None
    CacheInterface: Any = object


def keep_programs(folder: Path) -> None:
    """Has all programs that are compiled from now on kept in a folder, and taken from there.

    Args:
        folder: for them; need not exist.
    """
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    if compilation_cache is not None:
        compilation_cache.get_file_cache = lambda path: (_Programs(path), path)


class _Programs(CacheInterface):
    """Programs by a key that says all that they were made from."""

    def __init__(self, folder: str) -> None:
        self._path = Path(folder)

    def get(self, key: str) -> bytes | None:
        """What was put; None if there is nothing, or it is damaged."""
        return read_entry(self._file(key))

    def put(self, key: str, value: bytes) -> None:
        """Keeps a program, if that is possible."""
        write_entry(self._file(key), lambda file: file.write(value))

    def _file(self, key: str) -> Path:
        return self._path / f"{key}.program"
