"""Names of types that are used everywhere."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

# A tree of modules and arrays by name: parameters, and anything with one entry for each of them
# (gradients, shapes, factors).
Params = dict[str, Any]
# The same with the logical names of its axes around each array; see `sharding.logical_axes`.
Boxed = dict[str, Any]
# An array in a pytree of ours: JAX also makes such trees with placeholders in place of arrays.
Leaf = Any
# Arrays of a batch by name, `[B, ...]`, on the host or on devices.
Batch = dict[str, Array]
HostBatch = dict[str, np.ndarray]
# Shapes and dtypes of the arrays of a batch.
Shapes = dict[str, jax.ShapeDtypeStruct]
# Scalars by name, as computed by a program and as logged.
Metrics = dict[str, Float[Array, "..."]]
Scalars = dict[str, float]
# A JSON object, mutable and read-only.
Json = dict[str, Any]
Facts = Mapping[str, Any]
# Arrays, or values for each of them, by path: `blocks/layer_0/attention/query/kernel`.
ByPath = dict[str, Any]
