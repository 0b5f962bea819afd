"""Speed and memory of accelerators, and how to name devices that this machine does not have.

Peaks are dense bfloat16, without sparsity. Link bandwidth is what one chip can send in one
direction over all its links together. TPUs: the pages of each generation in Google's Cloud TPU
documentation (cloud.google.com/tpu/docs/v5e and so on; half of the number where they give both
directions together); v2 and v3: Jouppi et al. 2020, "A domain-specific supercomputer for training
deep neural networks", table 3. GPUs: NVIDIA's data sheets, named beside each number; half of a peak
that is only given with sparsity. GPU links are NVLink, or PCI Express on cards without NVLink. TPU
memory is what the compiler allows a program, as stated in its out-of-memory error (libtpu 0.0.42):
a little less than the documentation gives.
"""

import dataclasses
import functools
import importlib.util
import math
import os
import re
from collections.abc import Sequence

import jax
from jax.experimental import topologies

from transformer.checks import whole_number
from transformer.errors import ConfigError, MissingDependencyError
from transformer.training.absent_gpus import ABSENT_GPUS, absent_devices

_GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """One kind of chip.

    Attributes:
        peak_flops: FLOP/s of one chip.
        links: bytes/s that one chip can send.
        memory: bytes that a program can use on one device; None if the device itself reports it.
        devices: JAX devices per chip.
    """

    peak_flops: float
    links: float
    memory: int | None = None
    devices: int = 1


# Keys are prefixes of JAX's `device_kind`.
ACCELERATORS = {
    # "A100 Tensor Core GPU", all forms: 312 TFLOPS; NVLink 600 GB/s in both directions.
    "NVIDIA A100": Accelerator(312e12, 300e9),
    # "H100 Tensor Core GPU", H100 SXM: 1,979 TFLOPS with sparsity; 900 GB/s.
    "NVIDIA H100": Accelerator(989e12, 450e9),
    # The same, first edition, H100 PCIe: 1,513 TFLOPS with sparsity; 600 GB/s.
    "NVIDIA H100 PCIe": Accelerator(756e12, 300e9),
    # The same, H100 NVL, each of the two cards: 1,671 TFLOPS with sparsity; 600 GB/s.
    "NVIDIA H100 NVL": Accelerator(835e12, 300e9),
    # "H200 Tensor Core GPU", H200 SXM: 1,979 TFLOPS with sparsity; 900 GB/s.
    "NVIDIA H200": Accelerator(989e12, 450e9),
    # The same, H200 NVL: 1,671 TFLOPS with sparsity; 900 GB/s.
    "NVIDIA H200 NVL": Accelerator(835e12, 450e9),
    # "GB200 NVL72 and HGX B200", one GPU of HGX B200: 4.5 PFLOPS with sparsity; 1.8 TB/s.
    "NVIDIA B200": Accelerator(2250e12, 900e9),
    # The same, one GPU of GB200: 5 PFLOPS with sparsity; 1.8 TB/s.
    "NVIDIA GB200": Accelerator(2500e12, 900e9),
    # "L4 Tensor Core GPU": 242 TFLOPS with sparsity; PCIe Gen4 x16, 64 GB/s in both directions.
    "NVIDIA L4": Accelerator(121e12, 32e9),
    # "T4 Tensor Core GPU": 65 TFLOPS of float16, as it has no bfloat16; PCIe Gen3 x16, 32 GB/s.
    "Tesla T4": Accelerator(65e12, 16e9),
    "TPU v2": Accelerator(45e12, 248e9, int(7.48 * _GIB), devices=2),
    "TPU v3": Accelerator(123e12, 328e9, int(15.48 * _GIB), devices=2),
    "TPU v4": Accelerator(275e12, 300e9, int(30.75 * _GIB)),
    "TPU v5 lite": Accelerator(197e12, 200e9, int(15.75 * _GIB)),
    "TPU v5": Accelerator(459e12, 600e9, int(95.74 * _GIB)),
    "TPU v6 lite": Accelerator(918e12, 400e9, int(31.25 * _GIB)),
    "TPU7x": Accelerator(2307e12, 600e9, int(94.75 * _GIB), devices=2),
}

# Aliases.
ACCELERATORS |= {
    "TPU v5e": ACCELERATORS["TPU v5 lite"],
    "TPU v5p": ACCELERATORS["TPU v5"],
    "TPU v6e": ACCELERATORS["TPU v6 lite"],
}

# An example shape of each TPU generation; it shows how many numbers a shape has.
GENERATIONS = {
    "v2": "v2:4x4",
    "v3": "v3:4x4",
    "v4": "v4:2x2x1",
    "v5e": "v5e:2x2",
    "v5p": "v5p:4x4x4",
    "v6e": "v6e:16x16",
    "tpu7x": "tpu7x:4x4x4",
}
# Packages that bring the compiler for NVIDIA's GPUs.
_CUDA_PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin")
# The largest pods have 9,216 chips.
_MOST_DEVICES = 16_384
_TOPOLOGY = re.compile(
    r"((?P<slices>[1-9][0-9]*)x)?"
    r"(?P<kind>[a-z0-9]+)(:(?P<shape>[1-9][0-9]*(x[1-9][0-9]*)*))?"
)


@dataclasses.dataclass(frozen=True)
class Target:
    """Devices to compile for.

    Attributes:
        name: the topology as the user wrote it.
        devices: the JAX devices; this machine need not have them.
        chips: number of chips.
        accelerator: the kind of chip; None if unknown (CPUs).
        memory: bytes that a program can use on each device; None if there is no limit.
        slices: slices of TPUs.
    """

    name: str
    devices: Sequence[jax.Device]
    chips: int
    accelerator: Accelerator | None
    memory: int | None
    slices: int = 1

    @property
    def peak_flops(self) -> float | None:
        """Peak FLOP/s of all chips together; None if unknown."""
        return None if self.accelerator is None else self.accelerator.peak_flops * self.chips


def accelerator_of(device_kind: str) -> Accelerator | None:
    """Looks up an accelerator by JAX's `device_kind`; None if unknown."""
    if " MIG " in device_kind:
        return None  # Only part of a chip.
    # Longest name first: "TPU v5 lite" must not match "TPU v5", nor "L40S" match "L4".
    for name in sorted(ACCELERATORS, key=len, reverse=True):
        rest = device_kind.removeprefix(name)
        if rest != device_kind and not rest[:1].isalnum():
            return ACCELERATORS[name]
    return None


def find_target(topology: str) -> Target:
    """Returns the devices of a topology.

    Call this before anything else asks JAX for devices, because it configures the process.

    Args:
        topology: such as `v5e:16x16`, `2xv5e:16x16` (two slices), `h100:8`, `cpu:8`, or `gpu` for
            the GPUs of this machine.

    Raises:
        ConfigError: if the topology does not exist; the message lists the valid ones.
        MissingDependencyError: if it names accelerators whose compiler is not installed.
    """
    match = _TOPOLOGY.fullmatch(topology)
    kind, shape = (match["kind"], match["shape"]) if match else ("", None)
    sides = [whole_number(side) for side in (shape or "").split("x")]
    slices = whole_number(match["slices"] or "1") if match else None
    numbers = [*sides, slices]
    if shape is not None and (None in numbers or math.prod(filter(None, numbers)) > _MOST_DEVICES):
        raise _unknown(topology, f"at most {_MOST_DEVICES:,} devices can be planned for")
    if slices not in (None, 1) and kind not in GENERATIONS:
        raise _unknown(topology, "only TPUs come in slices")
    if kind == "cpu" and shape is not None and len(sides) == 1:
        return _cpus(topology, int(shape))
    if kind == "gpu" and shape is None:
        return _gpus(topology)
    if kind in ABSENT_GPUS and len(sides) == 1:
        return _absent_gpus(topology, kind, int(shape or 1))
    if kind in GENERATIONS and shape is not None:
        if shape.count("x") != GENERATIONS[kind].count("x"):
            raise _unknown(topology, f"shapes of {kind} are written like {GENERATIONS[kind]}")
        return _tpus(topology, kind, slices or 1)
    raise _unknown(topology, "there is none of this name")


def _cpus(name: str, count: int) -> Target:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", count)
    return Target(name, jax.devices(), 1, None, None)


def _gpus(name: str) -> Target:
    try:
        devices = jax.devices("gpu")
    except RuntimeError:
        raise _unknown(name, "JAX finds no GPU here") from None
    statistics = devices[0].memory_stats() or {}
    return Target(
        name,
        devices,
        len(devices),
        accelerator_of(devices[0].device_kind),
        statistics.get("bytes_limit"),
    )


def _absent_gpus(name: str, kind: str, count: int) -> Target:
    if not any(importlib.util.find_spec(plugin) for plugin in _CUDA_PLUGINS):
        raise MissingDependencyError(_CUDA_PLUGINS[0], "plan-gpu", f"compiling for {name}")
    jax.config.update("jax_platforms", "cpu")
    gpu = ABSENT_GPUS[kind]
    devices = absent_devices(gpu, count)
    return Target(name, devices, count, accelerator_of(gpu.device_kind), gpu.usable)


def _tpus(name: str, kind: str, slices: int) -> Target:
    if importlib.util.find_spec("libtpu") is None:
        raise MissingDependencyError("libtpu", "plan", f"compiling for {name}")
    # The TPU is not attached, so libtpu must not query its metadata server.
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"
    # Several plans may run at once, because none of them occupies a TPU.
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    jax.config.update("jax_platforms", "cpu")
    describe = functools.partial(
        topologies.get_topology_desc,
        platform="tpu",
        topology_name=name.removeprefix(f"{slices}x"),
        num_slices=slices,
    )
    try:
        # A real v4 shows its two cores as one device.
        described = describe(chip_config_name="megacore") if kind == "v4" else describe()
    except jax.errors.JaxRuntimeError as error:
        raise _unknown(
            name, str(error).splitlines()[0].removeprefix("INVALID_ARGUMENT: ")
        ) from None
    devices = described.devices
    accelerator = accelerator_of(devices[0].device_kind)
    if accelerator is None:
        raise _unknown(name, f"nothing is known of {devices[0].device_kind}")
    chips = len(devices) // accelerator.devices
    return Target(name, devices, chips, accelerator, accelerator.memory, slices)


def _unknown(topology: str, why: str) -> ConfigError:
    examples = ", ".join(GENERATIONS.values())
    return ConfigError(
        f"--topology={topology}: {why}. There are cpu:N (N devices), gpu (those that are here), "
        f"{', '.join(f'{gpu}:N' for gpu in ABSENT_GPUS)} (GPUs that need not be here) and TPUs "
        f"by generation and shape, such as {examples}; sides beyond 1 are even, and 2xv5e:2x2 are "
        f"two slices."
    )
