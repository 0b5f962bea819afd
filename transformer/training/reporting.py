"""Reports metrics and speed of each step, and which parameters diverged."""

import math
import time

import jax
import numpy as np

from transformer.errors import NonFiniteLossError
from transformer.training.experiment import Experiment
from transformer.training.finishing import SAMPLED, VALIDATION
from transformer.training.flops import peak_flops
from transformer.training.metrics import MetricsWriter, Progress
from transformer.training.selection import split
from transformer.training.step import parameter_groups
from transformer.types import Batch, HostBatch, Scalars


class Reporter:
    """Writes and shows the metrics computed on the device; rejects losses that are not finite."""

    def __init__(
        self, experiment: Experiment, writer: MetricsWriter, progress: Progress, log_every: int
    ) -> None:
        self._writer, self._progress, self._log_every = writer, progress, log_every
        trained, _ = split(experiment.shapes.params, experiment.trained)
        self._groups = list(parameter_groups(trained))
        self._tokens = experiment.clock.tokens_per_step
        self._peak = peak_flops()
        self._last = time.monotonic()
        self._previous_norms: np.ndarray | None = None

    def report(
        self, start: int, count: int, metrics: HostBatch, waited: float, flops: int | None
    ) -> None:
        """Writes those metrics of the `count` steps after `start` that are due.

        Args:
            start: the step before the first of them.
            count: number of steps.
            metrics: metrics of each step, `[limit, ...]`; see `step.train_step`.
            waited: how many seconds one of them has waited for its data.
            flops: FLOPs of one step; None if unknown.

        Raises:
            NonFiniteLossError: names the step and the parameters.
        """
        now = time.monotonic()
        step_time, self._last = (now - self._last) / count, now
        groups = metrics["group_norms"]
        for index in range(count):
            rows = {name: values[index] for name, values in metrics.items()}
            scalars = {name: float(row) for name, row in rows.items() if name != "group_norms"}
            step = start + index + 1
            if not (math.isfinite(scalars["loss"]) and math.isfinite(scalars["grad_norm"])):
                self._blame(step, scalars["loss"], groups[index])
            self._previous_norms = groups[index]
            if step % self._log_every == 0:
                speed = {
                    "tokens_per_second": self._tokens / step_time,
                    "step_time": step_time,
                    "data_time": waited,
                }
                if flops is not None and self._peak is not None:
                    speed["mfu"] = flops / self._peak / step_time
                self._writer.write(step, "train", scalars | speed)
                shown = {
                    "loss": f"{scalars['loss']:.3f}",
                    "tokens/s": f"{speed['tokens_per_second']:,.0f}",
                }
                if "mfu" in speed:
                    shown["MFU"] = f"{speed['mfu']:.1%}"
                self._progress.update(step, **shown)

    def validated(self, step: int, metrics: Scalars) -> float:
        """Writes and shows validation metrics; returns the loss to compare checkpoints by."""
        self._writer.write(step, VALIDATION, metrics)
        self._progress.say(
            f"step {step}: validation "
            + ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        )
        self._last = time.monotonic()
        return metrics.get(SAMPLED, metrics["loss"])

    def _blame(self, step: int, loss: float, norms: np.ndarray) -> None:
        before = self._previous_norms
        lines = []
        for index, group in enumerate(self._groups):
            last = "-" if before is None else f"{before[index]:.3g}"
            mark = "" if math.isfinite(norms[index]) else "   <- not finite"
            lines.append(f"  {group:<28} {last:>12} {norms[index]:>12.3g}{mark}")
        raise NonFiniteLossError(
            f"the loss of step {step} is {loss}: training cannot go on. Gradient norms by "
            f"parameter group:\n  {'group':<28} {f'step {step - 1}':>12} {f'step {step}':>12}\n"
            + "\n".join(lines)
            + "\nThe last good checkpoint is kept. A smaller --config.optimizer.learning_rate, a "
            "longer --config.optimizer.warmup or a smaller --config.optimizer.clip_norm may help; "
            "they need a new --workdir."
        )


class StepFlops:
    """Counts the FLOPs of one step, once for each shape of batch."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._known: dict[tuple, int] = {}

    def __call__(self, batches: Batch) -> int | None:
        """FLOPs of one step on batches `[limit, B, ...]`; None if the device's peak is unknown."""
        if peak_flops() is None:
            return None
        shapes = tuple(array.shape[1:] for array in jax.tree.leaves(batches))
        if shapes not in self._known:
            batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), batches)
            self._known[shapes] = self._experiment.flops_per_step(batch)
        return self._known[shapes]
