"""Names for what is handed from one place to the next everywhere."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Array, Float

# Modules by name, and in them arrays by name: parameters, and whatever has one entry for each of
# them (gradients, shapes, factors).
Params = dict[str, Any]
# The same with the logical names of its axes around each array; see `sharding.logical_axes`.
Boxed = dict[str, Any]
# Arrays of a batch by name, `[B, ...]`, on the devices and before they are brought there.
Batch = dict[str, Array]
HostBatch = dict[str, np.ndarray]
# Scalars by name, as a program computes them and as they are logged.
Metrics = dict[str, Float[Array, "..."]]
Scalars = dict[str, float]
# An object of JSON: what is read, and what is only read from.
Json = dict[str, Any]
Facts = Mapping[str, Any]
