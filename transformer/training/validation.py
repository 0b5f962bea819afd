"""Metrics of a whole data set, every prediction counted once."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from transformer.data.order import Batches
from transformer.sharding import batch_parts
from transformer.tasks.parts.protocol import Losses
from transformer.training.feeding import of_this_host
from transformer.training.step import mean_metrics


def make_validation(
    evaluation_step: Callable[[Any, Any], Losses], batches: Batches, place: NamedSharding
) -> Callable[[Any, int | None], dict[str, float]]:
    """A function of parameters and the number of batches (None: all) to metrics.

    Args:
        evaluation_step: of parameters and a batch; compiled.
        batches: over all hosts.
        place: of a global batch.
    """
    totals = make_totals(evaluation_step, batches, place)

    def validate(params: Any, limit: int | None) -> dict[str, float]:
        return {name: float(value) for name, value in mean_metrics(totals(params, limit)).items()}

    return validate


def make_totals(
    evaluation_step: Callable[[Any, Any], Losses], batches: Batches, place: NamedSharding
) -> Callable[[Any, int | None], list[Losses]]:
    """`make_validation` before means are taken: what the evaluation step gives for each batch.

    Batches that do not divide over the devices are filled up with rows that count for nothing.
    """
    parts = 1 if place.is_fully_replicated else batch_parts(place.mesh) // jax.process_count()
    share = of_this_host(batches, parts)

    def evaluated(params: Any, limit: int | None) -> list[Losses]:
        count = len(share) if limit is None else min(limit, len(share))
        found = []
        for index in np.linspace(0, len(share) - 1, count).round().astype(int):
            batch = jax.tree.map(
                lambda x: jax.make_array_from_process_local_data(place, x), share[index]
            )
            found.append(evaluation_step(params, batch))
        return found

    return evaluated
