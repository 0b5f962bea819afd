"""Settings of training that do not depend on the task: `config.train`."""

import dataclasses
from typing import Annotated

from transformer.limits import Count, Seed, Whole
from transformer.traced import RateOrOff
from transformer.training.durations import Duration, Interval
from transformer.training.precision import KeptDType


@dataclasses.dataclass(frozen=True)
class Train:
    """How long to train, and when to evaluate and save; its fields are `config.train`.

    Attributes:
        duration: length of the run; for durations see `training.durations`.
        seed: seed of parameters, dropout and data order, from 0 to 2**32 - 1.
        log_every: how often metrics are written.
        evaluate_every: how often the validation loss is measured.
        validation_batches: how many batches an evaluation uses, spread evenly; None uses all. The
            last evaluation of a run always uses all; its `sampled_loss`, over the same batches as
            earlier evaluations, is the one to compare with theirs.
        save_every: how often a checkpoint is saved; one is always saved at the end.
        keep_last: how many of the newest checkpoints to keep, besides the one with the best
            validation loss.
        microbatches: number of parts in which each batch's gradient is computed to save memory; the
            result is that of the whole batch.
        steps_per_dispatch: how many steps are handed to the device at once. With more, small models
            wait less for Python. Results do not depend on it; on a GPU those of 1 and of more steps
            may differ in rounding.
        ema_decay: decay of an exponential moving average of the parameters, which evaluation and
            generation then use; 0 keeps none.
        parameter_dtype: dtype in which matrices are kept: `float32` or `bfloat16`, which saves
            memory and rounds each update stochastically; see `training.precision`.
        cast_once: converts matrices to the dtype of the computation once in a step, not wherever
            one is used. Microbatches and recomputed layers then use the same copy; their gradients
            have that dtype, and are added in float32.
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
    parameter_dtype: KeptDType = "float32"
    cast_once: bool = False
    tensorboard: bool = True


# Fields of `config.train` that may change in an existing workdir, because they do not affect what
# has been computed so far.
CHANGEABLE = (
    "duration",
    "log_every",
    "evaluate_every",
    "validation_batches",
    "save_every",
    "keep_last",
    "tensorboard",
)
