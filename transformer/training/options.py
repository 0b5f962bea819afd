"""How to train, whatever the task: `config.train`."""

import dataclasses
from typing import Annotated

from transformer.limits import Count, Seed, Whole
from transformer.traced import RateOrOff
from transformer.training.durations import Duration, Interval


@dataclasses.dataclass(frozen=True)
class Train:
    """Fields of `config.train`.

    Attributes:
        duration: of the run; for durations see `training.durations`.
        seed: of parameters, dropout and data order, from 0 to 2**32 - 1.
        log_every: how often metrics are written.
        evaluate_every: how often the validation loss is measured.
        validation_batches: of how many batches, spread evenly; None takes all. The last
            evaluation of a run always takes all, and compares with earlier ones by its
            `sampled_loss`, which is of as many as they took.
        save_every: how often a checkpoint is saved; one is always saved at the end.
        keep_last: how many of the newest checkpoints stay, besides the one with the best
            validation loss.
        microbatches: parts in which each batch's gradient is computed, to save memory; the
            result is that of the whole batch.
        steps_per_dispatch: how many steps are handed to the device at once. Small models wait
            less for Python; results do not depend on it.
        ema_decay: keeps an exponential moving average of the parameters, which evaluation and
            generation then use; 0 keeps none.
        tensorboard: also writes TensorBoard event files.
    """

    duration: Duration = "1000 steps"
    seed: Seed = 0
    log_every: Interval = "10 steps"
    evaluate_every: Interval = "100 steps"
    validation_batches: Count | None = None
    save_every: Interval = "500 steps"
    keep_last: Count = 2
    microbatches: Count = 1
    steps_per_dispatch: Annotated[int, Whole(1, 100_000)] = 1
    ema_decay: RateOrOff = 0.0
    tensorboard: bool = True


# Fields of `config.train` that may change in an existing workdir: they do not change what has
# been computed so far.
CHANGEABLE = (
    "duration",
    "log_every",
    "evaluate_every",
    "validation_batches",
    "save_every",
    "keep_last",
    "tensorboard",
)
