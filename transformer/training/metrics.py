"""What a run writes and shows: `metrics.jsonl`, TensorBoard, a progress bar and a picture."""

import importlib.util
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rich.console
import rich.progress

FILE = "metrics.jsonl"


class MetricsWriter:
    """Appends scalars to `metrics.jsonl` and, if asked, to TensorBoard event files."""

    def __init__(self, workdir: Path, *, step: int, tensorboard: bool, writes: bool = True) -> None:
        """Opens the files at `step`, dropping what a killed run wrote beyond it.

        Args:
            workdir: the run folder.
            step: up to which lines are kept.
            tensorboard: whether to write event files, too.
            writes: False does nothing, in processes that are not the one that writes.
        """
        self._file = self._events = None
        if not writes:
            return
        path = workdir / FILE
        kept = [line for line in read_metrics(workdir) if line["step"] <= step]
        part = path.with_suffix(".part")
        part.write_text("".join(json.dumps(line) + "\n" for line in kept), "utf-8")
        part.replace(path)
        self._file = path.open("a", encoding="utf-8")
        if tensorboard:
            from tensorboardX import SummaryWriter

            self._events = SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, split: str, scalars: Mapping[str, float]) -> None:
        """One line: `step`, `split`, then the scalars."""
        if self._file is not None:
            self._file.write(json.dumps({"step": step, "split": split, **scalars}) + "\n")
            self._file.flush()
        if self._events is not None:
            for name, value in scalars.items():
                self._events.add_scalar(f"{split}/{name}", value, step)

    def close(self) -> None:
        """Writes out what is still in memory."""
        if self._file is not None:
            self._file.close()
        if self._events is not None:
            self._events.close()


def tensorboard_is_installed() -> bool:
    """Whether event files can be written."""
    return importlib.util.find_spec("tensorboardX") is not None


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`; a last line cut short by a kill is left out."""
    path = workdir / FILE
    if not path.exists():
        return []
    lines = []
    for line in path.read_text("utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines


class Progress:
    """A live bar on a terminal, a line now and then elsewhere; on stderr."""

    def __init__(self, total: int, *, shown: bool = True) -> None:
        """Shows nothing yet.

        Args:
            total: steps of the run.
            shown: False never shows anything, in processes that are not the one that reports.
        """
        self.console = rich.console.Console(stderr=True, highlight=False, quiet=not shown)
        self._total = total
        self._next_line = 0.0
        self._bar = None
        self._status: dict[str, str] = {}

    def start(self, step: int) -> None:
        """Begins to count, at a step that may not be the first."""
        self._started, self._first_step = time.monotonic(), step
        if self.console.is_terminal:
            self._bar = rich.progress.Progress(
                rich.progress.TextColumn("step {task.completed}/{task.total}"),
                rich.progress.BarColumn(),
                rich.progress.TextColumn("{task.fields[status]}"),
                rich.progress.TimeElapsedColumn(),
                rich.progress.TextColumn("ETA"),
                rich.progress.TimeRemainingColumn(),
                console=self.console,
            )
            self._task = self._bar.add_task("train", total=self._total, completed=step, status="")
            self._bar.start()

    def update(self, step: int, **status: str) -> None:
        """Shows the step and what is known at it."""
        self._status |= status
        text = "  ".join(f"{name} {value}" for name, value in self._status.items())
        if self._bar is not None:
            self._bar.update(self._task, completed=step, status=text)
            return
        now = time.monotonic()
        if now < self._next_line:
            return
        self._next_line = now + 5.0
        rate = (now - self._started) / max(1, step - self._first_step)
        self.say(f"step {step}/{self._total}  {text}  ETA {_clock(rate * (self._total - step))}")

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False)
        elif not self.console.quiet:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leaves the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()


def _clock(seconds: float) -> str:
    """Hours, however many, minutes and seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}"


def draw_curves(workdir: Path) -> Path | None:
    """The loss curves as `curves.png`; None if nothing was measured yet."""
    # A figure of its own, not pyplot: no window system and no global state.
    from matplotlib.figure import Figure

    lines = [line for line in read_metrics(workdir) if "loss" in line]
    if not lines:
        return None
    figure = Figure(figsize=(10, 4), layout="constrained")
    loss_axes, norm_axes = figure.subplots(1, 2, width_ratios=(2, 1))
    for split, colour, style in (("train", "#9bb8d3", "-"), ("validation", "#c8553d", "o-")):
        points = [(line["step"], line["loss"]) for line in lines if line["split"] == split]
        if points:
            steps, losses = zip(*points, strict=True)
            loss_axes.plot(
                steps, losses, style, color=colour, markersize=4, linewidth=1.2, label=split
            )
    validation = [line for line in lines if line["split"] == "validation"]
    if validation:
        best = min(validation, key=lambda line: line["loss"])
        loss_axes.annotate(
            f"{best['loss']:.3f}",
            (best["step"], best["loss"]),
            textcoords="offset points",
            xytext=(0, 8),
            ha="center",
            color="#c8553d",
        )
    loss_axes.set(xlabel="step", ylabel="loss (nats per prediction)")
    loss_axes.legend(frameon=False)
    train = [line for line in lines if line["split"] == "train" and "grad_norm" in line]
    steps = [line["step"] for line in train]
    norm_axes.plot(steps, [line["grad_norm"] for line in train], color="#9bb8d3", linewidth=1)
    norm_axes.set(xlabel="step", ylabel="gradient norm", yscale="log")
    rates = norm_axes.twinx()
    rates.plot(steps, [line["learning_rate"] for line in train], color="#6a994e", linewidth=1.2)
    rates.set_ylabel("learning rate", color="#6a994e")
    for axes in (loss_axes, norm_axes):
        axes.spines[["top"]].set_visible(False)
        axes.grid(alpha=0.25)
    path = workdir / "curves.png"
    figure.savefig(path, dpi=130)
    return path
