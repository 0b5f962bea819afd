"""Reports resolved values, parameters, memory and FLOPs of a config, without training."""

import flax.linen as nn
import jax
import rich.console
import rich.table
from ml_collections import ConfigDict

from transformer.nn.mixture import active_parameters
from transformer.planning.ahead_of_time import compile_steps, parameter_table, shown_shape
from transformer.tasks.parts.models import HasExperts
from transformer.training.experiment import Experiment, prepare
from transformer.training.flops import peak_flops
from transformer.training.saved_arrays import size_in_bytes
from transformer.types import Json


def plan(config: ConfigDict, *, compiles: bool = False) -> Json:
    """Reports on a config from shapes alone, without writing anything.

    Args:
        config: the config of the run.
        compiles: also compiles the training step, which takes as long as at the start of a run.

    Returns:
        `config` (resolved), `parameters`, `active_parameters` (those used for one token; fewer than
        all in mixtures of experts), `parameter_table` (see `ahead_of_time`), `data` (what was
        read), `total_steps`, `flops_per_step` (of the first step, if batches differ), `memory` in
        bytes (`parameters`, `optimizer`, and if compiled the compiler's `temporary` and `total`)
        and `peak_flops` if it is known.
    """
    experiment = prepare(config)
    shapes, model = experiment.shapes, experiment.model
    table = parameter_table(experiment)
    return {
        "config": experiment.config.to_dict(),
        "parameters": sum(row["count"] for row in table),
        "active_parameters": active_parameters(
            nn.meta.unbox(shapes.params),
            model.experts_per_token if isinstance(model, HasExperts) else 0,
        ),
        "parameter_table": table,
        "data": experiment.data.describe(),
        "total_steps": experiment.total_steps,
        "flops_per_step": experiment.flops_per_step(experiment.example_batch()),
        "peak_flops": peak_flops(),
        "memory": _memory(experiment) | (_planned_memory(experiment) if compiles else {}),
        "devices": [str(device.device_kind) for device in jax.devices()],
    }


def show(report: Json) -> None:
    """Prints a plan."""
    console = rich.console.Console(highlight=False)
    resolved = rich.table.Table("key", "value", title="config", title_justify="left")
    for section, values in sorted(report["config"].items()):
        for key, value in sorted(values.items()):
            resolved.add_row(f"config.{section}.{key}", repr(value))
    console.print(resolved)
    parameters = rich.table.Table(title="parameters", title_justify="left")
    for name in ("path", "shape", "dtype"):
        parameters.add_column(name)
    parameters.add_column("count", justify="right")
    cut = len(report["devices"]) > 1
    if cut:
        parameters.add_column("MiB a device", justify="right")
    for row in report["parameter_table"]:
        cells = [row["path"], shown_shape(row), row["dtype"], f"{row['count']:,}"]
        here = [f"{row['bytes_per_device'] / 2**20:,.2f}"] if cut else []
        parameters.add_row(*cells, *here)
    console.print(parameters)
    console.print(f"parameters           {report['parameters']:,}")
    if report["active_parameters"] < report["parameters"]:
        console.print(f"active per token     {report['active_parameters']:,}")
    console.print(f"data                 {report['data']}")
    console.print(f"steps                {report['total_steps']:,}")
    console.print(f"FLOPs per step       {report['flops_per_step']:.4g}")
    for name, size in report["memory"].items():
        console.print(f"{f'memory, {name}':<20} {size / 2**20:,.1f} MiB")
    if "total" not in report["memory"]:
        console.print("With --compile also the memory that a step takes.")


def _memory(experiment: Experiment) -> dict[str, int]:
    """Bytes of parameters and optimizer over all devices."""
    return {
        "parameters": size_in_bytes(experiment.shapes.params),
        "optimizer": size_in_bytes(experiment.shapes.optimizer),
    }


def _planned_memory(experiment: Experiment) -> dict[str, int]:
    """Bytes on one device, as planned by the compiler."""
    analysis = compile_steps(experiment).memory_analysis()
    return {
        "temporary": analysis.temp_size_in_bytes,
        "total": analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        - analysis.alias_size_in_bytes
        + analysis.temp_size_in_bytes,
    }
