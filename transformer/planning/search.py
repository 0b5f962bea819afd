"""Searches ways to shard a model over devices: compiles them one by one and ranks them."""

import math
import sys
from collections.abc import Iterator
from typing import NamedTuple

import rich.console
import rich.table
from ml_collections import ConfigDict

from transformer.errors import ConfigError
from transformer.planning.ahead_of_time import bytes_per_device
from transformer.planning.plan import Wishes, compiled_plan, describe, prepared, verdict
from transformer.sharding import in_slices
from transformer.training.accelerators import Target
from transformer.training.experiment import Experiment
from transformer.types import Json

# From the least to the most recomputation; once one fits, later ones are not needed.
REMAT = ("none", "dots", "full")


class Cut(NamedTuple):
    """Sizes of the mesh axes that a search chooses; the config gives the other axes."""

    data: int
    fsdp: int
    tensor: int


def search(config: ConfigDict, target: Target, wishes: Wishes, limit: int) -> Json:
    """Plans several meshes, each with as little recomputation as fits.

    Meshes with little sharding come first. For each mesh, recomputation increases until the program
    fits. Meshes that the config refuses, or whose state alone does not fit, are not compiled.

    Args:
        config: as for `planning.plan`; its mesh says over how many devices experts and sequences
            are sharded.
        target: the devices.
        wishes: the assumptions of the plans.
        limit: the maximum number of programs to compile.

    Returns:
        `ranked`: the plans that fit, the shortest `estimated_seconds` per step first; `refused`:
        `mesh`, `remat` and `why` of the others; `untried`: how many meshes were left when `limit`
        was reached.

    Raises:
        ConfigError: if no mesh works, with the reason for the first one.
    """
    ranked, refused, compiled = [], [], 0
    slices = in_slices(target.devices, config.mesh.slices)
    meshes = list(cuts(len(slices[0]), config.mesh.expert * config.mesh.sequence))
    untried = 0
    for cut in meshes:
        if compiled >= limit:
            untried += 1
            continue
        for remat in REMAT if "compute" in config.model else (None,):
            row = {"mesh": cut._asdict(), "remat": remat}
            try:
                experiment = prepared(_changed(config, cut, remat), target, wishes)
            except ConfigError as error:
                refused.append(row | {"why": str(error)})
                break
            least = least_memory(experiment)
            if target.memory is not None and least > target.memory:
                why = f"parameters, optimizer and gradients alone are {least / 2**30:.2f} GiB"
                refused.append(row | {"why": why})
                break
            described = describe(experiment, target, wishes)
            print(f"compiling {cut} remat={remat}", file=sys.stderr)
            compiled += 1
            try:
                report = compiled_plan(experiment, described, target)
            except Exception as error:  # One candidate failed; try the others.
                refused.append(row | {"why": str(error).splitlines()[0]})
                continue
            if report["fits"]:
                ranked.append(report | estimate(report, target, wishes) | row)
                break
            refused.append(row | {"why": verdict(report)})
            if compiled >= limit:
                break
    if not ranked and not compiled:
        raise ConfigError(f"no mesh of {target.name} works; the first: {refused[0]['why']}")
    return {"ranked": rank(ranked), "refused": refused, "untried": untried}


def cuts(devices: int, taken: int = 1) -> Iterator[Cut]:
    """All factorizations of a number of devices as data x fsdp x tensor, little sharding first.

    Args:
        devices: the number of devices.
        taken: the product of the sizes of the other mesh axes.
    """
    free = devices // taken if devices % taken == 0 else 0
    divisors = [size for size in range(1, free + 1) if free % size == 0]
    for tensor in divisors:
        for fsdp in divisors:
            if free % (tensor * fsdp) == 0:
                yield Cut(free // (tensor * fsdp), fsdp, tensor)


def least_memory(experiment: Experiment) -> int:
    """The minimum of bytes per device that any step needs: the state and the gradients."""
    shapes = experiment.shapes
    moments_of = bytes_per_device(shapes.optimizer)
    state = bytes_per_device(shapes.params) + moments_of + bytes_per_device(shapes.average)
    # Gradients of the trained parameters. Most optimizers have two moments of that size.
    return state + min(bytes_per_device(shapes.params), moments_of // 2)


def estimate(report: Json, target: Target, wishes: Wishes) -> Json:
    """Estimates the time of a step in which either the arithmetic or the links are always busy.

    The arithmetic, including recomputation, runs at the highest expected utilisation, and all links
    of a chip are busy in one direction. The longer of the two times counts, as if communication and
    computation overlapped perfectly; that is the best case. The slower network between slices is
    not taken into account.

    Returns:
        `received` (bytes per chip), and if the accelerator is known `compute_seconds`,
        `exchange_seconds` and `estimated_seconds`.
    """
    moved = sum(exchange["moved"] for exchange in report["collectives"].values())
    received = moved * len(target.devices) // target.chips
    if target.peak_flops is None or target.accelerator is None:
        return {"received": received}
    compute = report["computed_flops_per_step"] / (target.peak_flops * wishes.mfu[1])
    exchange = received / target.accelerator.links
    return {
        "received": received,
        "compute_seconds": compute,
        "exchange_seconds": exchange,
        "estimated_seconds": max(compute, exchange),
    }


def rank(plans: list[Json]) -> list[Json]:
    """Sorts plans by estimated time; if unknown, by FLOPs and then by bytes exchanged."""
    return sorted(
        plans,
        key=lambda plan: (
            plan.get("estimated_seconds", math.inf),
            plan["computed_flops_per_step"],
            plan["received"],
        ),
    )


def show(found: Json) -> None:
    """Prints the result of a search."""
    console = rich.console.Console(highlight=False)
    table = rich.table.Table(title="what fits, the fastest first", title_justify="left")
    table.caption = "seconds a step, of computing, of links; GiB a device; seconds to compile"
    for name in ("data", "fsdp", "tensor", "remat"):
        table.add_column(name, no_wrap=True)
    for name in ("step", "compute", "links", "GiB", "compile"):
        table.add_column(name, justify="right", no_wrap=True)
    for plan in found["ranked"]:
        times = [plan.get(f"{name}_seconds") for name in ("estimated", "compute", "exchange")]
        table.add_row(
            *(str(size) for size in plan["mesh"].values()),
            str(plan["remat"]),
            *("" if seconds is None else f"{seconds:.3g}" for seconds in times),
            f"{plan['memory']['total'] / 2**30:.2f}",
            f"{plan['compile_seconds']:.0f}",
        )
    console.print(table)
    refused = rich.table.Table(title="others", title_justify="left")
    for name in ("data", "fsdp", "tensor", "remat", "why"):
        refused.add_column(name)
    for row in found["refused"]:
        sizes = (str(size) for size in row["mesh"].values())
        refused.add_row(*sizes, str(row["remat"]), row["why"])
    if found["refused"]:
        console.print(refused)
    if found["untried"]:
        console.print(f"{found['untried']} more meshes were not tried; see --most.")


def _changed(config: ConfigDict, cut: Cut, remat: str | None) -> ConfigDict:
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.mesh.update(cut._asdict())
        if remat is not None:
            config.model.compute.remat = remat
    return config
