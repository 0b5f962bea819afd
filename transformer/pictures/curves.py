"""The losses of a run as a picture."""

import math
from collections.abc import Sequence
from pathlib import Path

from transformer.files import write_picture
from transformer.types import Facts


def draw_curves(metrics: Sequence[Facts], path: Path) -> bool:
    """Draws losses, gradient norms and learning rates.

    Args:
        metrics: the lines of `metrics.jsonl`.
        path: the path of the picture.

    Returns:
        False if nothing was measured yet, so that there is no picture.
    """
    # A separate figure, not pyplot: no window system and no global state.
    from matplotlib.figure import Figure

    lines = [
        line
        for line in metrics
        if line["split"] in ("train", "validation") and math.isfinite(line.get("loss", math.nan))
    ]
    if not lines:
        return False
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
    shown = {"grad_norm", "learning_rate"}
    train = [line for line in lines if line["split"] == "train" and shown <= line.keys()]
    steps = [line["step"] for line in train]
    norm_axes.plot(steps, [line["grad_norm"] for line in train], color="#9bb8d3", linewidth=1)
    norm_axes.set(xlabel="step", ylabel="gradient norm", yscale="log")
    rates = norm_axes.twinx()
    rates.plot(steps, [line["learning_rate"] for line in train], color="#6a994e", linewidth=1.2)
    rates.set_ylabel("learning rate", color="#6a994e")
    for axes in (loss_axes, norm_axes):
        axes.spines[["top"]].set_visible(False)
        axes.grid(alpha=0.25)
    write_picture(path, figure)
    return True
