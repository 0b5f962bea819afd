"""A cache of compiled programs between runs; damaged files are replaced.

JAX writes its own cache files in place and never rewrites them: every later run reads a file that
was cut by a kill, refuses it and compiles anew, and a flipped bit is noticed only if the
compression in use has a checksum.
"""

from pathlib import Path

import jax

from transformer.caches import read_entry, write_entry

# JAX has no public interface for another cache. Without these names, JAX's own cache is used.
try:
    from jax._src import compilation_cache
    from jax._src.compilation_cache_interface import CacheInterface
except ImportError:  # pragma: no cover
    compilation_cache = None  # pyright: ignore
    CacheInterface = object  # pyright: ignore


def keep_programs(folder: Path) -> None:
    """From now on, keeps all compiled programs in a folder, and takes them from there.

    Args:
        folder: the folder of the programs; it need not exist.
    """
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    if compilation_cache is not None:
        compilation_cache.get_file_cache = lambda path: (_Programs(path), path)


class _Programs(CacheInterface):
    """Programs by a key that covers everything they were compiled from."""

    def __init__(self, folder: str) -> None:
        self._path = Path(folder)

    def get(self, key: str) -> bytes | None:
        """The program with this key; None if it is missing or damaged."""
        return read_entry(self._file(key))

    def put(self, key: str, value: bytes) -> None:
        """Stores a program, if possible."""
        write_entry(self._file(key), lambda file: file.write(value))

    def _file(self, key: str) -> Path:
        return self._path / f"{key}.program"
