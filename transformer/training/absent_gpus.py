"""GPUs that this machine does not have, described as XLA's compiler wants them.

The compiler asks a device for these numbers when one is there. Sources: NVIDIA's white papers of
the architectures (A100, H100, Ada, Blackwell), the table "Technical Specifications per Compute
Capability" of the CUDA C++ Programming Guide, and for clocks and memory the specifications that XLA
keeps of such cards (xla/backends/gpu/target_config/specs); L4: its data sheet.
"""

import dataclasses
from collections.abc import Sequence

import jax
from jax.experimental import topologies

# What JAX gives a program of a GPU's memory, unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise.
USABLE = 0.75


@dataclasses.dataclass(frozen=True)
class AbsentGPU:
    """One kind of GPU.

    Attributes:
        device_kind: JAX's name of it.
        capability: the compute capability, major and minor.
        cores: streaming multiprocessors.
        units: float32 units of each.
        threads: that each holds at most.
        clock: in GHz, boosted.
        shared: bytes of shared memory of each multiprocessor.
        cache: bytes of the second-level cache.
        memory: bytes.
        bandwidth: bytes of memory a second.
    """

    device_kind: str
    capability: tuple[int, int]
    cores: int
    units: int
    threads: int
    clock: float
    shared: int
    cache: int
    memory: int
    bandwidth: float

    @property
    def usable(self) -> int:
        """Bytes that a program can use."""
        return int(USABLE * self.memory)

    def description(self) -> str:
        """A `GpuTargetConfigProto` as text."""
        numbers = {
            "threads_per_block_limit": 1024,
            "threads_per_warp": 32,
            "shared_memory_per_block": 48 << 10,
            "shared_memory_per_core": self.shared,
            # The system keeps a KiB for itself.
            "shared_memory_per_block_optin": self.shared - 1024,
            "threads_per_core_limit": self.threads,
            "core_count": self.cores,
            "fpus_per_core": self.units,
            "block_dim_limit_x": (1 << 31) - 1,
            "block_dim_limit_y": (1 << 16) - 1,
            "block_dim_limit_z": (1 << 16) - 1,
            "registers_per_core_limit": 1 << 16,
            "registers_per_block_limit": 1 << 16,
            "memory_bandwidth": int(self.bandwidth),
            "l2_cache_size": self.cache,
            "clock_rate_ghz": self.clock,
            "device_memory_size": self.memory,
        }
        major, minor = self.capability
        return "\n".join(
            [
                "gpu_device_info {",
                *(f"  {name}: {number}" for name, number in numbers.items()),
                f"  cuda_compute_capability {{ major: {major} minor: {minor} }}",
                "}",
                'platform_name: "CUDA"',
                "dnn_version_info { major: 9 minor: 10 patch: 0 }",
                f'device_description_str: "{self.device_kind}"',
            ]
        )


ABSENT_GPUS = {
    "a100": AbsentGPU(
        "NVIDIA A100-SXM4-80GB", (8, 0), 108, 64, 2048, 1.41, 164 << 10, 40 << 20,
        85_100_068_864, 2.039e12,
    ),
    "h100": AbsentGPU(
        "NVIDIA H100 80GB HBM3", (9, 0), 132, 128, 2048, 1.98, 228 << 10, 50 << 20,
        84_942_979_072, 3.352e12,
    ),
    "h200": AbsentGPU(
        "NVIDIA H200", (9, 0), 132, 128, 2048, 1.98, 228 << 10, 50 << 20,
        151_397_597_184, 4.8e12,
    ),
    "b200": AbsentGPU(
        "NVIDIA B200", (10, 0), 148, 128, 2048, 1.965, 228 << 10, 126 << 20,
        191_514_411_008, 7.672e12,
    ),
    "l4": AbsentGPU(
        "NVIDIA L4", (8, 9), 58, 128, 1536, 2.04, 100 << 10, 48 << 20,
        24_152_899_584, 3e11,
    ),
}  # fmt: skip


def absent_devices(gpu: AbsentGPU, count: int) -> Sequence[jax.Device]:
    """Devices to compile for, all of one machine.

    Args:
        gpu: their kind.
        count: how many.

    Raises:
        jax.errors.JaxRuntimeError: if the compiler does not know the kind.
    """
    return topologies.get_topology_desc(
        platform="cuda", target_config=gpu.description(), topology=f"1x1x{count}"
    ).devices
