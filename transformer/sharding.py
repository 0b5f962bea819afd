"""Logical axes to mesh axes, said once.

Modules name the axes of their parameters by meaning (`embed`, `heads`, `mlp`, `vocab`). This file
alone says over which axes of the device mesh each of them is cut.
"""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from transformer.errors import ConfigError

# Logical axis -> mesh axes. An axis that is not listed is kept whole on every device.
RULES: tuple[tuple[str, str | tuple[str, ...]], ...] = (
    ("batch", ("data", "fsdp")),
    ("embed", "fsdp"),
    ("heads", "tensor"),
    ("kv_heads", "tensor"),
    ("mlp", "tensor"),
    ("vocab", "tensor"),
)


@dataclasses.dataclass(frozen=True)
class Mesh:
    """The shape of the device mesh; `config.mesh`.

    Attributes:
        data: copies of the model, each with its part of the batch; -1 takes the devices left over.
        fsdp: devices over which each copy's parameters and optimizer state are cut.
        tensor: devices over which heads, feed-forward and vocabulary are cut.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def check(self) -> None:
        """Refuses sizes that no mesh can have."""
        for axis in ("fsdp", "tensor"):
            if getattr(self, axis) < 1:
                raise ConfigError(f"config.mesh.{axis} is {getattr(self, axis)}: it must be >= 1.")
        if self.data < 1 and self.data != -1:
            raise ConfigError(f"config.mesh.data is {self.data}: give -1 or a number >= 1.")

    def make(self) -> jax.sharding.Mesh:
        """The mesh over all devices.

        Raises:
            ConfigError: if the devices do not fill it exactly.
        """
        num_devices = jax.device_count()
        rest = self.fsdp * self.tensor
        data = num_devices // rest if self.data == -1 else self.data
        shape = (data, self.fsdp, self.tensor)
        if math.prod(shape) != num_devices:
            raise ConfigError(
                f"config.mesh asks for data x fsdp x tensor = {' x '.join(map(str, shape))} devices"
                f" and there are {num_devices}: make their product {num_devices}."
            )
        return jax.make_mesh(shape, ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)


def shardings_of(mesh: jax.sharding.Mesh, boxed: Any) -> Any:
    """The sharding of each parameter from the logical axes in its box.

    Args:
        mesh: the device mesh.
        boxed: parameters or their shapes as Linen's `init` returns them, boxes included.

    Raises:
        ConfigError: if an axis does not divide over the devices it is cut over.
    """

    def one(path: Any, leaf: Any) -> NamedSharding:
        names = logical_axes(leaf)
        value: Any = nn.meta.unbox(leaf)
        spec = _mesh_axes(names)
        for axis, (size, cut) in enumerate(zip(value.shape, spec, strict=True)):
            parts = math.prod(mesh.shape[name] for name in _as_tuple(cut))
            if size % parts:
                raise ConfigError(
                    f"axis {axis} ({names[axis]}) of parameter {jax.tree_util.keystr(path)} has "
                    f"{size} entries: they cannot be cut over {parts} devices. "
                    f"Change config.mesh or the model's size."
                )
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(one, boxed, is_leaf=is_box)


def batch_sharding(mesh: jax.sharding.Mesh, *, leading_axes: int = 0) -> NamedSharding:
    """The sharding of a batch whose first axis, after `leading_axes` others, is examples."""
    return NamedSharding(mesh, _mesh_axes((*(None,) * leading_axes, "batch")))


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def is_box(leaf: Any) -> bool:
    """Whether a leaf is a parameter together with the names of its axes."""
    return isinstance(leaf, nn.LogicallyPartitioned)


def logical_axes(leaf: Any) -> tuple[str | None, ...]:
    """The names of a parameter's axes, None where it has no name."""
    if is_box(leaf):
        return tuple(leaf.names)
    return (None,) * leaf.ndim


def _mesh_axes(names: tuple[str | None, ...]) -> PartitionSpec:
    spec = nn.spmd.logical_to_mesh_axes(names, RULES)
    assert spec is not None  # It is None only for names that are None as a whole.
    return spec


def _as_tuple(axes: str | tuple[str, ...] | None) -> tuple[str, ...]:
    if axes is None:
        return ()
    return (axes,) if isinstance(axes, str) else axes
