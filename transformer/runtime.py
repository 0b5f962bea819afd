"""What a process sets once before it computes."""

import ctypes
import os
import sys

import jax

from transformer.caches import cache_folder
from transformer.checks import whole_number
from transformer.compiled_programs import keep_programs
from transformer.errors import ConfigError

# From malloc.h: when free memory is given back, how many blocks may be mapped by themselves, and
# over how many arenas the threads are spread.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def prepare_process() -> None:
    """Keeps compiled programs on disk, and freed memory in the process.

    By default glibc maps large blocks by themselves and gives them back to the kernel at once, and
    every step of a CPU run takes tens of thousands of page faults to get them again. Only the main
    arena can hold such blocks, hence one arena for all threads.
    """
    folder = cache_folder()
    if folder is not None:
        keep_programs(folder / "compiled")
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_ARENA_MAX, 1)
            mallopt(_M_MMAP_MAX, 0)
            mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


# Where each of these says that there are several processes, JAX finds out the rest: SLURM, Open
# MPI, Cloud TPU pods and Kubernetes (whose number JobSet gives to pods).
_COUNTS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "NUM_PROCESSES", "JAX_NUM_PROCESSES")
_HOSTS = "TPU_WORKER_HOSTNAMES"


def join_processes(
    coordinator: str | None, num_processes: int | None, process_id: int | None, patience: int
) -> None:
    """Makes this process one of several that train together, if it is one.

    Args:
        coordinator: `HOST:PORT` of the first process; None finds it out where a cluster says that
            there are several.
        num_processes: how many there are; None finds it out.
        process_id: which this is, from 0; None finds it out.
        patience: seconds without a sign of life after which a process is taken for dead and all
            others end.

    Raises:
        ConfigError: if only some of them are given, or the others do not come.
    """
    given = (coordinator is not None, num_processes is not None, process_id is not None)
    if not any(given) and not _in_a_cluster():
        return
    if any(given) and not all(given):
        raise ConfigError(
            "give all of --coordinator=HOST:PORT, --num_processes and --process_id, or none of "
            "them where SLURM, Open MPI, Kubernetes or a TPU pod says so."
        )
    host, _, port = (coordinator or "").rpartition(":")
    if coordinator is not None and not (host and 0 < (whole_number(port) or 0) < 1 << 16):
        raise ConfigError(f"--coordinator is {coordinator!r}: write HOST:PORT, such as node0:1234.")
    if num_processes is not None and process_id is not None and process_id >= num_processes:
        raise ConfigError(
            f"--process_id is {process_id}: from 0 to {num_processes - 1}, as there are "
            f"--num_processes={num_processes}."
        )
    try:
        jax.distributed.initialize(
            coordinator, num_processes, process_id, heartbeat_timeout_seconds=patience
        )
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"the processes of this run do not find each other: {error}") from None


def _in_a_cluster() -> bool:
    """Whether the environment says that there are several processes."""
    several = any(os.environ.get(name, "1") not in ("", "0", "1") for name in _COUNTS)
    return several or "," in os.environ.get(_HOSTS, "")
