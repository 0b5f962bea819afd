"""Process-wide settings, made before the first computation."""

import ctypes
import os
import sys
from pathlib import Path

import jax

from transformer.caches import cache_folder
from transformer.checks import whole_number
from transformer.compiled_programs import keep_programs
from transformer.errors import ConfigError

# Options from malloc.h: when free memory is returned, how many blocks may be mapped separately, and
# the number of arenas for threads.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
# XLA otherwise compiles dozens of its own kernels for each matrix product of a program and tries
# them. On an H100 those of cuBLAS are as fast, and are there at once (LOG.md).
_CUBLAS = "--xla_gpu_enable_triton_gemm=false"
# Files of NVIDIA's and AMD's GPUs and of Google's TPUs.
_DEVICES = Path("/dev")
_NVIDIA = "nvidia[0-9]*"
_ACCELERATORS = (_NVIDIA, "kfd", "accel[0-9]*", "vfio/[0-9]*")


def prepare_process() -> None:
    """Keeps compiled programs on disk, and freed memory in the process; products are cuBLAS's.

    By default glibc maps large blocks separately and returns them to the kernel at once, so every
    step of a CPU run costs tens of thousands of page faults. Only the main arena can keep such
    blocks, hence one arena for all threads. With an accelerator the compiler alone needs memory
    here, and its threads would wait for that one arena.
    """
    folder = cache_folder()
    if folder is not None:
        keep_programs(folder / "compiled")
    if sys.platform == "linux" and not may_use_accelerator():
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_ARENA_MAX, 1)
            mallopt(_M_MMAP_MAX, 0)
            mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
    prefer_cublas()


def prefer_cublas() -> None:
    """Leaves matrix products of NVIDIA's GPUs to cuBLAS, unless `XLA_FLAGS` says otherwise."""
    asked = os.environ.get("XLA_FLAGS", "")
    named = _CUBLAS.partition("=")[0]
    if named not in asked and may_use_accelerator() and next(_DEVICES.glob(_NVIDIA), None):
        os.environ["XLA_FLAGS"] = f"{asked} {_CUBLAS}".strip()


def may_use_accelerator() -> bool:
    """Whether JAX may compute on something else than CPUs; does not ask JAX for its devices.

    They may not be asked for before several processes have joined each other.
    """
    platforms = jax.config.jax_platforms
    if platforms:
        return platforms.split(",")[0] != "cpu"
    return any(next(_DEVICES.glob(pattern), None) for pattern in _ACCELERATORS)


def dump_programs(folder: Path) -> None:
    """Lets the compiler write what it makes of each program, before and after its work, as text.

    Programs that were compiled before are compiled again. Works only before the first computation.
    """
    wanted = f"--xla_dump_to={folder} --xla_dump_hlo_as_text"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {wanted}".strip()
    jax.config.update("jax_enable_compilation_cache", False)


# If one of these variables says that there are several processes, JAX detects the rest: SLURM, Open
# MPI, Cloud TPU pods and Kubernetes (where JobSet sets the number of pods).
_COUNTS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "NUM_PROCESSES", "JAX_NUM_PROCESSES")
_HOSTS = "TPU_WORKER_HOSTNAMES"


def join_processes(
    coordinator: str | None, num_processes: int | None, process_id: int | None, patience: int
) -> None:
    """Joins the processes that train together, if there are several.

    Args:
        coordinator: `HOST:PORT` of the first process; None detects it in a cluster.
        num_processes: the number of processes; None detects it.
        process_id: the number of this process, from 0; None detects it.
        patience: seconds without a heartbeat after which a process counts as dead and all others
            end.

    Raises:
        ConfigError: if only some of them are given, or other processes do not join.
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
