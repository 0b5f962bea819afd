"""Metrics of a whole data set, in which every prediction has equal weight."""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import NamedSharding

from transformer.data.order import Batches
from transformer.tasks.parts.protocol import Losses
from transformer.training.feeding import of_this_host
from transformer.training.step import mean_metrics
from transformer.types import Batch, HostBatch, Params, Scalars


def validation_totals(
    evaluation_step: Callable[[Params, Batch], Losses],
    batches: Batches,
    sharding: NamedSharding,
    params: Params,
    limit: int | None = None,
) -> list[Losses]:
    """Runs the evaluation step on each batch.

    Batches that do not divide over the devices are padded with rows of weight zero.

    Args:
        evaluation_step: the compiled evaluation step; takes parameters and a batch.
        batches: the batches of all hosts.
        sharding: the sharding of a global batch.
        params: the parameters to evaluate.
        limit: how many batches to take, spread evenly; None takes all.
    """
    share = validation_share(batches, sharding)
    count = len(share) if limit is None else min(limit, len(share))
    return [
        evaluation_step(params, placed(share[index], sharding))
        for index in np.linspace(0, len(share) - 1, count).round().astype(int)
    ]


def validation_share(batches: Batches, sharding: NamedSharding) -> Batches:
    """The rows of validation batches that this process feeds, padded so that its devices share."""
    if sharding.is_fully_replicated:
        # Also of trials side by side, whose mesh has no axis of examples.
        return batches.of_host(0, 1, 1)
    return of_this_host(batches, sharding.mesh, padded=True)


def means(totals: list[Losses]) -> Scalars:
    """The metrics of all batches together."""
    return {name: float(value) for name, value in mean_metrics(totals).items()}


def placed(batch: HostBatch, sharding: NamedSharding) -> Batch:
    """Places a batch on the devices, from the part that each host has."""
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)
