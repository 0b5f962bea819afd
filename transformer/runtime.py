"""What a process sets once before it computes."""

import ctypes
import sys

import jax

from transformer.data.tokens import cache_folder

# From malloc.h: when free memory is given back, how many blocks may be mapped by themselves, and
# over how many arenas the threads are spread.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def prepare_process() -> None:
    """Keeps compiled programs on disk, and freed memory in the process.

    By default glibc maps large blocks by themselves and gives them back to the kernel at once, and
    every step of a CPU run takes tens of thousands of page faults to get them again. Only the main
    arena can hold such blocks, hence one arena for all threads.
    """
    jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_ARENA_MAX, 1)
            mallopt(_M_MMAP_MAX, 0)
            mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
