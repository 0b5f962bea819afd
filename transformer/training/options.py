"""How to train, whatever the task: `config.train`."""

import dataclasses

from transformer.checks import require_at_least, require_fraction, require_seed
from transformer.traced import NumberOrOff
from transformer.training.durations import require_some_time


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

    duration: str = "1000 steps"
    seed: int = 0
    log_every: str = "10 steps"
    evaluate_every: str = "100 steps"
    validation_batches: int | None = None
    save_every: str = "500 steps"
    keep_last: int = 2
    microbatches: int = 1
    steps_per_dispatch: int = 1
    ema_decay: NumberOrOff = 0.0
    tensorboard: bool = True

    def check(self) -> None:
        """Refuses values that cannot work.

        Raises:
            ConfigError: naming the field.
        """
        require_at_least("train", self, keep_last=1, microbatches=1, steps_per_dispatch=1)
        if self.validation_batches is not None:
            require_at_least("train", self, validation_batches=1)
        for field in ("duration", "log_every", "evaluate_every", "save_every"):
            require_some_time(getattr(self, field), key=f"train.{field}")
        require_fraction("train", self, "ema_decay")
        require_seed("train", self, "seed")


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
