"""Which checkpoints of a run stay."""

from collections.abc import Mapping, Sequence
from typing import Any

from orbax.checkpoint import checkpoint_managers


class NewestAndBest(checkpoint_managers.PreservationPolicy):
    """Keeps the newest checkpoints and the one with the lowest validation loss.

    Orbax's own `BestN` needs `best_fn`, whose file of metrics has no checksum and makes the whole
    folder unreadable when it is damaged.

    Args:
        keep_last: how many of the newest checkpoints to keep.
        losses: validation losses by step; losses added to it later count, too.
    """

    def __init__(self, keep_last: int, losses: Mapping[int, float]) -> None:
        self._keep_last, self._losses = keep_last, losses

    def should_preserve(
        self,
        # Orbax's protocol for them cannot be checked at run time.
        checkpoints: Sequence[Any],
        *,
        context: checkpoint_managers.PreservationContext,
    ) -> Sequence[bool]:
        """Whether to keep each checkpoint; the last one is being saved."""
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = self.kept(steps)
        return [step in kept for step in steps]

    def kept(self, steps: Sequence[int]) -> set[int | None]:
        """The steps to keep, where there are these."""
        return {*sorted(steps)[-self._keep_last :], lowest(self._losses, steps)}


def lowest(losses: Mapping[int, float], steps: Sequence[int]) -> int | None:
    """The step with the lowest loss (the earliest of ties); None if no step has a loss."""
    known = [step for step in sorted(steps) if step in losses]
    return min(known, key=lambda step: losses[step], default=None)
