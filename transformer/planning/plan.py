"""Plans the training of a config on some machine from its compiled step, without running it."""

import dataclasses
import math
import re
import time

import jax
import rich.console
import rich.table
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from transformer.errors import ConfigError
from transformer.nn.compute import computing
from transformer.planning.ahead_of_time import (
    batch_shapes,
    bytes_per_device,
    compile_steps,
    parameter_table,
    shown_shape,
)
from transformer.planning.collectives import collectives
from transformer.tasks.parts.protocol import StandsIn
from transformer.training.accelerators import Target
from transformer.training.experiment import Experiment, prepare
from transformer.training.flops import count_flops
from transformer.training.sections import build, owner
from transformer.training.selection import join, split
from transformer.types import Batch, Json, Params, Shapes

_SUFFIXES = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12}
_AMOUNT = re.compile(r"([0-9]+\.?[0-9]*(?:[eE][+-]?[0-9]+)?)([KMBGT]?)")
# Messages of the TPU compiler: memory needed and memory available, in binary units.
_NO_ROOM = (
    re.compile(r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm"),
    re.compile(r"\(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)"),
)
_BINARY = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class Wishes:
    """The assumptions of a plan.

    Attributes:
        tokens: number of tokens to train on; None takes `config.train.duration`.
        mfu: the lowest and the highest expected model FLOPs utilisation.
        price: price of one chip for one hour; None leaves the cost out.
    """

    tokens: float | None = None
    mfu: tuple[float, float] = (0.3, 0.5)
    price: float | None = None


def parse_tokens(text: str) -> float:
    """Parses a number of tokens such as `1T`, `300B` or `1.5e12`.

    Raises:
        ConfigError: if the text has another form.
    """
    match = _AMOUNT.fullmatch(text.strip())
    number = float(match[1]) * _SUFFIXES[match[2]] if match else 0.0
    if not 0.0 < number < math.inf:
        raise ConfigError(f"--tokens={text}: write a number of tokens like 1T, 300B or 1.5e12.")
    return number


def parse_mfu(values: list[str]) -> tuple[float, float]:
    """Parses one expected utilisation, or the lowest and the highest.

    Raises:
        ConfigError: if they are not between 0 and 1.
    """
    try:
        numbers = sorted(map(float, values))
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or not all(0.0 < number <= 1.0 for number in numbers):
        raise ConfigError(
            f"--mfu={','.join(values)}: give one or two numbers between 0 and 1, like 0.3,0.5."
        )
    return numbers[0], numbers[-1]


def prepared(config: ConfigDict, target: Target, wishes: Wishes) -> Experiment:
    """Prepares the experiment on the devices of a target, reading data only if necessary.

    Data are not needed if the config gives the sizes that data would decide and the task knows the
    shapes of its batches.
    """
    task = build("task", config.task)
    sizes = owner("task", config.task.name).DIMENSIONS
    known = all(config.model[field] is not None for field in sizes)
    # The length of an epoch depends on the data.
    in_epochs = wishes.tokens is None and "epoch" in config.train.duration
    without_data = isinstance(task, StandsIn) and known and not in_epochs
    data = task.stand_in() if without_data else None
    return prepare(config, devices=target.devices, data=data)


def plan(config: ConfigDict, target: Target, wishes: Wishes) -> Json:
    """Compiles the training step for the devices of a target and reports on it.

    Returns:
        `topology`, `device_kind`, `devices`, `chips`, `slices`, `mesh` (devices by axis), `remat`,
        `parameters`, `parameter_table` (see `ahead_of_time`), `memory` (bytes on each device:
        `parameters`, `optimizer`, `batch`; from the compiler `arguments`, `temporary`, `total`,
        `peak`; `available` if there is a limit), `fits`, `needs` (bytes, if it does not fit and the
        compiler says how much it needs), `collectives` (by kind: `count`, `bytes` and `moved` in a
        step, see `collectives`), `flops_per_step`, `computed_flops_per_step` (including what is
        recomputed to save memory), `tokens_per_step`, `steps`, `compile_seconds`,
        `compile_cpu_seconds`, and if the accelerator's peak is known the results of `duration`.

    Raises:
        ConfigError: if the config cannot work on these devices.
    """
    experiment = prepared(config, target, wishes)
    return compiled_plan(experiment, describe(experiment, target, wishes), target)


def describe(experiment: Experiment, target: Target, wishes: Wishes) -> Json:
    """The part of a plan that needs no compiler."""
    shapes = experiment.shapes
    batch = experiment.example_batch()
    table = parameter_table(experiment)
    flops = experiment.flops_per_step(batch)
    tokens_per_step = experiment.clock.tokens_per_step
    steps = experiment.total_steps
    if wishes.tokens is not None:
        steps = math.ceil(wishes.tokens / tokens_per_step)
    return {
        "topology": target.name,
        "device_kind": target.devices[0].device_kind,
        "devices": len(target.devices),
        "chips": target.chips,
        "slices": target.slices,
        "mesh": {axis: size for axis, size in experiment.mesh.shape.items() if size > 1},
        "remat": experiment.model.compute.remat,
        "parameters": sum(row["count"] for row in table),
        "parameter_table": table,
        "memory": {
            "parameters": bytes_per_device(shapes.params) + bytes_per_device(shapes.average),
            "optimizer": bytes_per_device(shapes.optimizer),
            "batch": bytes_per_device(batch_shapes(experiment)),
            "available": target.memory,
        },
        "flops_per_step": flops,
        "computed_flops_per_step": computed_flops(experiment, batch),
        "tokens_per_step": tokens_per_step,
        "steps": steps,
        **duration(flops, tokens_per_step, steps, target, wishes),
    }


def compiled_plan(experiment: Experiment, described: Json, target: Target) -> Json:
    """Completes the result of `describe` with that of the compiler."""
    # A cached program would hide how long compiling takes.
    jax.config.update("jax_enable_compilation_cache", False)
    found: Json = {}
    begun, processor = time.perf_counter(), time.process_time()
    try:
        compiled = compile_steps(experiment)
    except jax.errors.JaxRuntimeError as error:
        needs = needed_memory(str(error))
        if needs is None:
            raise
        compiled, found = None, {"fits": False, "needs": needs[0]}
    found |= {
        "compile_seconds": time.perf_counter() - begun,
        "compile_cpu_seconds": time.process_time() - processor,
    }
    if compiled is None:
        return described | found
    used = compiled.memory_analysis()
    memory = {
        "arguments": used.argument_size_in_bytes,
        "temporary": used.temp_size_in_bytes,
        "total": used.argument_size_in_bytes
        + used.output_size_in_bytes
        - used.alias_size_in_bytes
        + used.temp_size_in_bytes,
        "peak": used.peak_memory_in_bytes,
    }
    exchanged = collectives(compiled.as_text())
    return (
        described
        | found
        | {
            "memory": described["memory"] | memory,
            "fits": target.memory is None or memory["total"] <= target.memory,
            "collectives": {kind: exchange._asdict() for kind, exchange in exchanged.items()},
        }
    )


def duration(
    flops: int, tokens_per_step: float, steps: int, target: Target, wishes: Wishes
) -> Json:
    """Expected duration and cost of training, each at the best and the worst utilisation.

    Returns:
        `mfu`, `step_seconds`, `tokens_per_second`, `days`, `chip_hours` and, given a price, `cost`;
        empty if the peak is unknown.
    """
    if target.peak_flops is None:
        return {}
    lowest, highest = wishes.mfu
    step_seconds = [flops / (target.peak_flops * mfu) for mfu in (highest, lowest)]
    chip_hours = [steps * seconds * target.chips / 3600 for seconds in step_seconds]
    return {
        "mfu": [highest, lowest],
        "step_seconds": step_seconds,
        "tokens_per_second": [tokens_per_step / seconds for seconds in step_seconds],
        "days": [steps * seconds / 86_400 for seconds in step_seconds],
        "chip_hours": chip_hours,
    } | ({} if wishes.price is None else {"cost": [hours * wishes.price for hours in chip_hours]})


def computed_flops(experiment: Experiment, batch: Shapes) -> int:
    """FLOPs of forward and backward pass, including what is recomputed to save memory.

    Args:
        experiment: the experiment to train.
        batch: shapes of the batch, over all hosts.
    """
    model = computing(experiment.model, attention="einsum")
    moving, kept = split(experiment.shapes.params, experiment.trained)

    def objective(moving: Params, kept: Params, batch: Batch) -> Float[Array, ""]:
        params = experiment.merged(join(moving, kept))
        return experiment.task.losses(model, params, batch, {}).objective

    return count_flops(jax.grad(objective), moving, kept, batch)


def needed_memory(message: str) -> tuple[int, int] | None:
    """Bytes needed and available, from a compiler's message; None for any other message."""
    for pattern in _NO_ROOM:
        match = pattern.search(message)
        if match:
            needed, unit, there, other = match.groups()
            return round(float(needed) * _BINARY[unit]), round(float(there) * _BINARY[other])
    return None


def show(report: Json) -> None:
    """Prints a plan."""
    console = rich.console.Console(highlight=False)
    table = rich.table.Table(title="where parameters lie", title_justify="left")
    table.add_column("path", overflow="fold")
    table.add_column("shape / mesh axes that cut it", overflow="fold")
    table.add_column("MiB a device", justify="right")
    for row in report["parameter_table"]:
        table.add_row(row["path"], shown_shape(row), f"{row['bytes_per_device'] / 2**20:,.2f}")
    console.print(table)
    for name, value in _lines(report):
        console.print(f"{name:<27}{value}")


def verdict(report: Json) -> str:
    """A sentence that says whether the program fits in memory, and by how much."""
    memory = report["memory"]
    available = memory["available"]
    if not report["fits"]:
        needs = report.get("needs", memory.get("total"))
        return f"does not fit: needs {needs / _GIB:.2f} GiB of {available / _GIB:.2f} GiB a device"
    if available is None:
        return f"needs {memory['total'] / _GIB:.2f} GiB a device; no limit is known"
    left = (available - memory["total"]) / _GIB
    return f"fits: {memory['total'] / _GIB:.2f} GiB of {available / _GIB:.2f}, {left:.2f} GiB left"


def _lines(report: Json) -> list[tuple[str, str]]:
    """The figures of a plan, one per line."""
    mesh = " x ".join(f"{axis} {size}" for axis, size in report["mesh"].items()) or "one device"
    slices = f" in {report['slices']} slices" if report["slices"] > 1 else ""
    devices = f"{report['devices']} of {report['chips']} chips{slices} ({report['device_kind']})"
    lines = [
        ("devices", devices),
        ("mesh", mesh),
        ("parameters", f"{report['parameters']:,}"),
    ]
    memory = report["memory"]
    for name in ("parameters", "optimizer", "batch", "arguments", "temporary", "total", "peak"):
        if name in memory:
            lines.append((f"GiB a device, {name}", f"{memory[name] / _GIB:.3f}"))
    lines.append(("memory", verdict(report)))
    flops, computed = report["flops_per_step"], report["computed_flops_per_step"]
    lines.append(("FLOPs a step", f"{flops:.4g}, {computed:.4g} with recomputation"))
    for kind, exchange in report.get("collectives", {}).items():
        sizes = f"{exchange['bytes'] / 2**20:,.1f} MiB, {exchange['moved'] / 2**20:,.1f} received"
        lines.append((f"a step, {kind}", f"{exchange['count']:,}: {sizes}"))
    lines.append(("tokens a step", f"{report['tokens_per_step']:,.0f}"))
    lines.append(("steps", f"{report['steps']:,}"))
    if "mfu" in report:
        lines += [
            ("model FLOPs utilisation", _range(report["mfu"], ".2f")),
            ("seconds a step", _range(report["step_seconds"], ".3g")),
            ("tokens a second", _range(report["tokens_per_second"], ",.0f")),
            ("days", _range(report["days"], ",.3g")),
            ("chip-hours", _range(report["chip_hours"], ",.0f")),
        ]
    if "cost" in report:
        lines.append(("cost", _range(report["cost"], ",.0f")))
    compiled = f"{report['compile_seconds']:.0f} s, {report['compile_cpu_seconds']:.0f} s of CPU"
    return [*lines, ("compiled in" if "total" in memory else "refused in", compiled)]


def _range(values: list[float], form: str) -> str:
    first, last = (format(value, form) for value in values)
    return first if first == last else f"{first} to {last}"
