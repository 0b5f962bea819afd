"""The one mapping from logical axes to mesh axes.

Modules name the axes of their parameters and activations by meaning (`embed`, `heads`, `mlp`,
`vocab`). Only this file decides over which axes of the device mesh each of them is sharded.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from transformer.errors import ConfigError
from transformer.limits import Whole
from transformer.types import Boxed, Params

AXES = ("data", "fsdp", "expert", "sequence", "tensor")
# The size of one axis; -1 takes the remaining devices.
Devices = Annotated[int, Whole(1, 1 << 20, also=(-1,))]
# A parameter or its shape, in a box with the logical names of its axes or without names.
Parameter = nn.LogicallyPartitioned | jax.ShapeDtypeStruct | Float[Array, "..."]
# A function of arrays.
Compute = TypeVar("Compute", bound=Callable)


@dataclasses.dataclass(frozen=True)
class Rules:
    """Maps logical axes to mesh axes. Other axes are whole on every device.

    Attributes:
        batch: examples, sharded over all mesh axes that split the data.
        sequence: tokens of an example, between and inside blocks.
        embed: the width of parameters; the width of activations (`features`) is never sharded.
        heads: heads of queries.
        kv_heads: heads of keys and values.
        mlp: the hidden width of feed-forward layers.
        vocab: the vocabulary.
        expert: experts of a mixture.
    """

    batch: tuple[str, ...] = ("data", "fsdp", "expert")
    sequence: tuple[str, ...] = ("sequence",)
    embed: tuple[str, ...] = ("fsdp", "sequence")
    heads: tuple[str, ...] = ("tensor",)
    kv_heads: tuple[str, ...] = ("tensor",)
    mlp: tuple[str, ...] = ("tensor",)
    vocab: tuple[str, ...] = ("tensor",)
    expert: tuple[str, ...] = ("expert",)

    def spec(self, names: Sequence[str | None]) -> PartitionSpec:
        """The mesh axes over which an array with these logical axes is sharded.

        Raises:
            ValueError: if two of its axes would be sharded over the same mesh axis.
        """
        cuts = [getattr(self, name, ()) if name else () for name in names]
        used = [axis for cut in cuts for axis in cut]
        twice = {axis for axis in used if used.count(axis) > 1}
        if twice:
            raise ValueError(
                f"the logical axes {tuple(names)} are cut over the mesh axis "
                f"{', '.join(sorted(twice))} more than once."
            )
        return PartitionSpec(*(cut if len(cut) > 1 else next(iter(cut), None) for cut in cuts))


RULES = Rules()


@dataclasses.dataclass(frozen=True)
class Mesh:
    """The shape of the device mesh; `config.mesh`.

    One of the axes may be -1: it takes the remaining devices. With several slices, which are
    connected by a slower network, the axes are those of one slice, and slices exchange nothing but
    gradients: each has `data` copies of its own.

    Attributes:
        data: copies of the model, each with its part of the batch.
        fsdp: devices over which each copy's parameters, optimizer state and part of the batch are
            sharded (Rajbhandari et al. 2020, ZeRO stage 3).
        expert: devices over which the experts of a mixture are sharded; everything else treats them
            like `data`.
        sequence: devices over which the tokens of each example are sharded, and parameters as over
            `fsdp`. Attention gathers the keys and values of a whole example, unless
            `config.model.compute.attention` is `ring`.
        tensor: devices over which heads, feed-forward and vocabulary are sharded (Shoeybi et al.
            2019).
        slices: slices of TPUs; -1 takes as many as the devices form. Simulated devices form any
            number of slices that divides theirs.
    """

    data: Devices = -1
    fsdp: Devices = 1
    expert: Devices = 1
    sequence: Devices = 1
    tensor: Devices = 1
    slices: Devices = 1

    def check(self) -> None:
        """Refuses sizes that do not make a mesh."""
        open_axes = [f"config.mesh.{axis}" for axis in AXES if getattr(self, axis) == -1]
        if len(open_axes) > 1:
            raise ConfigError(
                f"{' and '.join(open_axes)} are -1: only one axis takes the devices left over."
            )

    def make(self, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
        """Makes the mesh; neighbours in it are near each other in the hardware, if possible.

        Args:
            devices: the devices to use, all of them; None takes all that exist.

        Raises:
            ConfigError: if the devices do not fill it exactly.
        """
        devices = jax.devices() if devices is None else devices
        slices = in_slices(devices, self.slices)
        count = len(slices[0])
        sizes = [getattr(self, axis) for axis in AXES]
        left = max(1, count // math.prod(size for size in sizes if size != -1))
        shape = tuple(left if size == -1 else size for size in sizes)
        if math.prod(shape) != count:
            each = f" in each of {len(slices)} slices" if len(slices) > 1 else ""
            raise ConfigError(
                f"config.mesh asks for {' x '.join(AXES)} = {' x '.join(map(str, shape))} devices "
                f"and there are {count}{each}: make their product {count}."
            )
        grids = [
            mesh_utils.create_device_mesh(shape, slice_, allow_split_physical_axes=True)
            for slice_ in slices
        ]
        # As `mesh_utils.create_hybrid_device_mesh` has it, also for devices that are simulated.
        grid = np.concatenate(grids, axis=AXES.index("data"))
        return jax.sharding.Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def in_slices(devices: Sequence[jax.Device], count: int) -> list[Sequence[jax.Device]]:
    """The devices of each slice.

    Args:
        devices: all devices.
        count: `config.mesh.slices`.

    Raises:
        ConfigError: if they do not form that many slices of one size.
    """
    platform = devices[0].platform
    if platform == "cpu":
        count = max(1, count)
        if len(devices) % count:
            raise ConfigError(
                f"config.mesh.slices is {count}, and there are {len(devices)} devices, which do "
                f"not divide into {count} slices of one size."
            )
        size = len(devices) // count
        return [devices[start : start + size] for start in range(0, len(devices), size)]
    if count == 1 and platform != "tpu":
        return [devices]
    slices: dict[int, list[jax.Device]] = {}
    for device in devices:
        slices.setdefault(_slice_of(device, count), []).append(device)
    found = [slices[index] for index in sorted(slices)]
    sizes = sorted({len(slice_) for slice_ in found})
    if len(sizes) > 1:
        counts = " and ".join(map(str, sizes))
        raise ConfigError(f"a mesh needs slices of one size, and these have {counts} devices.")
    if count not in (-1, len(found)):
        raise ConfigError(
            f"config.mesh.slices is {count}, and the {len(devices)} devices form {len(found)}: "
            f"give --config.mesh.slices={len(found)}."
        )
    return found


def _slice_of(device: jax.Device, count: int) -> int:
    """The number of the slice that a device is part of."""
    try:
        return device.slice_index
    except AttributeError:
        if count in (-1, 1):
            return 0
        raise ConfigError(
            f"config.mesh.slices is {count}, and {device.device_kind} does not say of which slice "
            f"it is: leave it at 1."
        ) from None


def constrain(x: Float[Array, "..."], *names: str | None) -> Float[Array, "..."]:
    """Constrains the sharding of an activation, if `jax.set_mesh` has set a mesh.

    An axis that does not divide by its devices is left whole.

    Args:
        x: the activation.
        *names: the logical names of its axes.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    spec = RULES.spec(names)
    fitting = [
        cut if size % _parts(mesh, cut) == 0 else None
        for size, cut in zip(x.shape, spec, strict=True)
    ]
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*fitting))


def is_cut(name: str) -> bool:
    """Whether axes of this meaning are sharded over several devices of the mesh in use."""
    return parts(name) > 1


def parts(name: str) -> int:
    """Over how many devices of the mesh in use axes of this meaning are sharded."""
    mesh = jax.sharding.get_abstract_mesh()
    return math.prod(mesh.shape.get(axis, 1) for axis in getattr(RULES, name))


def per_device(
    compute: Compute,
    inputs: tuple[tuple[str | None, ...], ...],
    output: tuple[str | None, ...],
) -> Compute:
    """Wraps a function so that each device applies it to its shards, if a mesh is set.

    Args:
        compute: a function of arrays, or of trees of arrays with equal sharding.
        inputs: the logical axes of each argument.
        output: the logical axes of the result.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return compute
    return jax.shard_map(
        compute,
        in_specs=tuple(RULES.spec(names) for names in inputs),
        out_specs=RULES.spec(output),
        check_vma=False,
    )


def gathered(parameter: Float[Array, "..."], *names: str | None) -> Float[Array, "..."]:
    """Gathers a parameter over `fsdp` and `sequence`; it stays sharded over other axes.

    With this the compiler moves the parameter and not the activations; the gradient is scattered
    back.

    Args:
        parameter: the parameter as it is stored.
        *names: the logical names of its axes.
    """
    return constrain(parameter, *("features" if name == "embed" else name for name in names))


def shardings_of(mesh: jax.sharding.Mesh, boxed: Boxed) -> Params:
    """The sharding of each parameter from the logical axes in its box.

    Args:
        mesh: the device mesh.
        boxed: parameters or their shapes as Linen's `init` returns them, boxes included.

    Raises:
        ConfigError: if an axis does not divide by the devices it is sharded over.
    """

    def one(path: jax.tree_util.KeyPath, leaf: Parameter) -> NamedSharding:
        names = logical_axes(leaf)
        value = nn.meta.unbox(leaf)
        spec = RULES.spec(names)
        for axis, (size, cut) in enumerate(zip(value.shape, spec, strict=True)):
            parts = _parts(mesh, cut)
            if size % parts:
                raise ConfigError(
                    f"axis {axis} ({names[axis]}) of parameter {jax.tree_util.keystr(path)} has "
                    f"{size} entries: they cannot be cut over {parts} devices. Change config.mesh "
                    f"or the model's size, to {-(-size // parts) * parts} say."
                )
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(one, boxed, is_leaf=is_box)


def batch_sharding(mesh: jax.sharding.Mesh, *, leading_axes: int = 0) -> NamedSharding:
    """The sharding of a batch whose first axis, after `leading_axes` others, is examples."""
    return NamedSharding(mesh, RULES.spec((*(None,) * leading_axes, "batch")))


def batch_parts(mesh: jax.sharding.Mesh) -> int:
    """The number of devices over which the examples of a batch are sharded."""
    return _parts(mesh, RULES.batch)


def rows_by_process(mesh: jax.sharding.Mesh) -> dict[int, tuple[int, ...]] | None:
    """Which parts of a batch's rows the devices of each process hold, by its number.

    Processes may hold the same rows, where examples or the model are cut over several processes.

    Returns:
        None unless all hold equally many, and any two of them the same or none in common.
    """
    grid = mesh.devices.reshape(batch_parts(mesh), -1)
    held: dict[int, set[int]] = {}
    for part, devices in enumerate(grid):
        for device in devices:
            held.setdefault(device.process_index, set()).add(part)
    found = {process: tuple(sorted(rows)) for process, rows in held.items()}
    groups = set(found.values())
    even = len({len(rows) for rows in groups}) == 1
    return found if even and sum(map(len, groups)) == len(grid) else None


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def is_box(leaf: object) -> bool:
    """Whether a leaf is a parameter together with the names of its axes."""
    return isinstance(leaf, nn.LogicallyPartitioned)


def logical_axes(leaf: Parameter) -> tuple[str | None, ...]:
    """The names of a parameter's axes, None where it has no name."""
    if isinstance(leaf, nn.LogicallyPartitioned):
        return tuple(leaf.names)
    return (None,) * leaf.ndim


def num_batch_axes(names: Sequence[str | None]) -> int:
    """The number of leading axes of a parameter that count kernels and are part of none.

    These are the axes of stacked layers and of experts: `[layers, expert, embed, mlp]` has two.

    Args:
        names: the logical names of its axes.
    """
    others = (axis for axis, name in enumerate(names) if name not in ("layers", "expert"))
    return next(others, len(names))


def _parts(
    mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh, cut: str | tuple[str, ...] | None
) -> int:
    """The number of shards of an axis."""
    return math.prod(mesh.shape[name] for name in _as_tuple(cut))


def _as_tuple(axes: str | tuple[str, ...] | None) -> tuple[str, ...]:
    if axes is None:
        return ()
    return (axes,) if isinstance(axes, str) else axes
