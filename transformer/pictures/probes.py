"""How well a board is read out of a model, and how often the model breaks the rules."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from transformer.files import write_picture
from transformer.types import Facts

_TRAINED, _UNTRAINED, _CONSTANT = "#2f6db3", "#c8553d", "#8a8a8a"


def draw_probes(
    layers: Sequence[Float[np.ndarray, " layers"]],
    moves: Sequence[Float[np.ndarray, " moves"]],
    constant: float,
    constant_moves: Float[np.ndarray, " moves"],
    metrics: Sequence[Facts],
    path: Path,
) -> None:
    """Draws illegal moves over training, and right squares by layer and by move.

    Args:
        layers: shares of right squares after each layer, of the trained and the untrained network.
        moves: the same after each move, of the best layer.
        constant: what the most frequent class of each square is right about.
        constant_moves: the same after each move.
        metrics: the lines of `metrics.jsonl`.
        path: the path of the picture.
    """
    # A separate figure, not pyplot: no window system and no global state.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.8), layout="constrained")
    rules, by_layer, by_move = figure.subplots(1, 3)
    for split, color, style in (("train", "#9bb8d3", "-"), ("validation", _UNTRAINED, "o-")):
        points = [
            (line["step"], 100 * line["illegal"])
            for line in metrics
            if line["split"] == split and "illegal" in line
        ]
        if points:
            steps, shares = zip(*points, strict=True)
            rules.plot(steps, shares, style, color=color, markersize=3, linewidth=1.2, label=split)
    rules.set(xlabel="step", ylabel="illegal moves (percent)")
    rules.set_ylim(bottom=0)
    kinds = (("trained", _TRAINED), ("untrained", _UNTRAINED))
    for (name, color), values in zip(kinds, layers, strict=True):
        by_layer.plot(range(len(values)), 100 * values, "o-", color=color, label=name)
    by_layer.axhline(100 * constant, color=_CONSTANT, linestyle="--", label="most frequent")
    by_layer.set(xlabel="layers passed", ylabel="squares read right (percent)")
    by_layer.set_xticks(range(len(layers[0])))
    for (name, color), values in zip(kinds, moves, strict=True):
        by_move.plot(range(1, len(values) + 1), 100 * values, color=color, label=name)
    count = range(1, len(constant_moves) + 1)
    by_move.plot(count, 100 * constant_moves, "--", color=_CONSTANT, label="most frequent")
    by_move.set(xlabel="moves read", ylabel="squares read right (percent)")
    for axes in (rules, by_layer, by_move):
        _tidied(axes)
    write_picture(path, figure)


def _tidied(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
