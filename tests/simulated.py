"""Several simulated devices of one processor."""

import os

# Each device holds a thread while it waits for others, once for each exchange under way. XLA has as
# many threads as there are cores or devices, and where all of them wait nobody comes.
THREADS = 64
# A busy machine may keep one of them waiting for longer than XLA's forty seconds.
SECONDS = 300


def simulated_devices(count: int) -> dict[str, str]:
    """The environment of a process in which JAX finds so many devices."""
    flags = (
        os.environ.get("XLA_FLAGS", ""),
        f"--xla_force_host_platform_device_count={count}",
        f"--xla_cpu_collective_call_terminate_timeout_seconds={SECONDS}",
    )
    return {**os.environ, "XLA_FLAGS": " ".join(flags).strip(), "PJRT_NPROC": str(THREADS)}
