"""The kind of device that a computation is for."""

import jax


def platform() -> str:
    """The platform to compute on: that of the mesh in use (maybe not present here), or our own."""
    described = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if described is None else described.platform


def is_one_cpu() -> bool:
    """Whether all is computed by one CPU, whose cores share the work of each operation."""
    return platform() == "cpu" and jax.sharding.get_abstract_mesh().size <= 1
