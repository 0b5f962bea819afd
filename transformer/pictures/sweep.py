"""The picture of a sweep."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from transformer.files import write_picture
from transformer.types import Json

if TYPE_CHECKING:
    import matplotlib.axes

Row = Json
Curve = tuple[Sequence[int], Sequence[float]]
ColourOf = Callable[[Row], str | tuple[float, ...]]

# Beyond this many keys there is no room; the most important ones are shown.
MOST_KEYS = 8
_PER_LINE = 4


def draw_report(
    rows: Sequence[Row],
    ended: Sequence[Row],
    keys: Sequence[str],
    curves: Mapping[str, Curve],
    weights: Mapping[str, float],
    title: str,
    path: Path,
) -> None:
    """Draws the curves of all trials, losses against each key, parallel coordinates, importances.

    Args:
        rows: the trials, with `overrides` and `validation_loss`, the best first.
        ended: those of them that ended with a loss.
        keys: the keys that the trials override, with values that differ between ended trials.
        curves: validation losses of each trial, by step.
        weights: the importance of keys, from 0 to 1.
        title: what the importances are.
        path: the path of the picture.
    """
    from matplotlib.figure import Figure

    shown = sorted(keys, key=lambda key: -weights.get(key, 0.0))[:MOST_KEYS]
    colour = _colours(ended)

    scatter_lines = math.ceil(len(shown) / _PER_LINE)
    figure = Figure(figsize=(13, 4.2 * 2 + 3.0 * scatter_lines), layout="constrained")
    heights = [4.2, *[3.0] * scatter_lines, 4.2]
    grid = figure.add_gridspec(2 + scatter_lines, 4, height_ratios=heights)
    _curves(figure.add_subplot(grid[0, :3]), rows, ended, curves, colour)
    _importances(figure.add_subplot(grid[0, 3]), weights, title)
    for line in range(scatter_lines):
        here = shown[line * _PER_LINE : (line + 1) * _PER_LINE]
        cells = grid[1 + line, :].subgridspec(1, min(len(shown), _PER_LINE))
        for index, key in enumerate(here):
            _scatter(figure.add_subplot(cells[0, index]), ended, key, colour)
    _parallel(figure.add_subplot(grid[-1, :]), ended, shown, colour)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    write_picture(path, figure, dpi=110)


def _colours(ended: Sequence[Row]) -> ColourOf:
    """The colour of each trial: the darker, the lower its loss; grey if it did not end."""
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    norm = Normalize(*_range([row["validation_loss"] for row in ended]))
    colours = colormaps["viridis"]
    return lambda row: colours(0.9 * norm(row["validation_loss"])) if row in ended else "#bbbbbb"


def _curves(
    axes: "matplotlib.axes.Axes",
    rows: Sequence[Row],
    ended: Sequence[Row],
    curves: Mapping[str, Curve],
    colour: ColourOf,
) -> None:
    """The validation losses of all trials by step."""
    # The best trial is drawn on top.
    for row in reversed(rows):
        steps, values = curves[row["id"]]
        axes.plot(steps, values, "o-", color=colour(row), linewidth=1.2, markersize=2.5)
    axes.set(
        xlabel="step",
        ylabel="validation loss (nats per prediction)",
        title="All trials: the darker, the lower the final loss; grey did not end",
    )
    # Diverged trials must not hide the others.
    low, high = _range([v for row in ended for v in curves[row["id"]][1] if math.isfinite(v)])
    if ended:
        axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    axes.grid(alpha=0.25)


def _importances(axes: "matplotlib.axes.Axes", weights: Mapping[str, float], title: str) -> None:
    """A bar for each of the most important keys."""
    ordered = sorted(weights, key=lambda key: weights[key])[-MOST_KEYS:]
    axes.barh(ordered, [weights[key] for key in ordered], color="#5b8db8")
    axes.set_yticks(range(len(ordered)), [_short(key) for key in ordered])
    axes.set(xlim=(0, 1), title=title)


def _scatter(axes: "matplotlib.axes.Axes", rows: Sequence[Row], key: str, colour: ColourOf) -> None:
    """Final losses against the values of one key."""
    values = [row["overrides"].get(key) for row in rows]
    places, ticks = _places(values)
    if ticks is None and _is_logarithmic(values):
        axes.set_xscale("log")
    axes.scatter(
        places, [row["validation_loss"] for row in rows], c=[colour(r) for r in rows], s=22
    )
    if ticks is not None:
        axes.set_xticks(range(len(ticks)), ticks)
    elif len(set(values)) <= 6 and all(len(f"{value:.6g}") <= 6 for value in values):
        # Ticks are at the values that were tried.
        axes.set_xticks(sorted(set(values)), [f"{value:.6g}" for value in sorted(set(values))])
        axes.tick_params(axis="x", which="minor", bottom=False)
    axes.set(xlabel=_short(key), ylabel="validation loss")
    axes.grid(alpha=0.25)


def _parallel(
    axes: "matplotlib.axes.Axes", rows: Sequence[Row], keys: Sequence[str], colour: ColourOf
) -> None:
    """A line for each trial through its values and its loss, each axis from 0 to 1."""
    names = [*keys, "validation loss"]
    columns = []
    for index, name in enumerate(names):
        values = [
            r["validation_loss"] if name == names[-1] else r["overrides"].get(name) for r in rows
        ]
        places, ticks = _places(values)
        logarithmic = ticks is None and name != names[-1] and _is_logarithmic(values)
        scaled = np.log(places) if logarithmic else np.asarray(places, np.float64)
        low, high = _range(scaled)
        columns.append((scaled - low) / (high - low))
        if ticks is None:
            ends = [(0.0, np.exp(low) if logarithmic else low)]
            ends.append((1.0, np.exp(high) if logarithmic else high))
            labels = [(at, f"{value:.4g}") for at, value in ends] if rows else []
        else:
            labels = [((n - low) / (high - low), text) for n, text in enumerate(ticks)]
        for at, text in labels:
            axes.annotate(
                text,
                (index, at),
                textcoords="offset points",
                xytext=(5, 0),
                fontsize=8,
                va="center",
                bbox={"color": "white", "alpha": 0.8, "pad": 1},
            )
        axes.axvline(index, color="#999999", linewidth=0.8)
    if rows:
        lines = np.stack(columns, axis=-1)
        for row, line in reversed(list(zip(rows, lines, strict=True))):
            axes.plot(range(len(names)), line, color=colour(row), linewidth=1.2, alpha=0.85)
    axes.set_xticks(range(len(names)), [_short(name) for name in names])
    axes.set(yticks=[], xlim=(-0.1, len(names) - 0.6), ylim=(-0.06, 1.06), title="All keys at once")
    axes.spines["left"].set_visible(False)


def _places(values: Sequence[object]) -> tuple[list[float], list[str] | None]:
    """Numbers as they are; other values by their index among all values, which become ticks."""
    if all(_is_number(value) for value in values):
        return [float(value) for value in values], None
    texts = [str(value) for value in values]
    ticks = sorted(set(texts))
    return [float(ticks.index(text)) for text in texts], ticks


def _is_logarithmic(values: Sequence[object]) -> bool:
    """Whether values span more than a factor of eight above zero."""
    return bool(values) and min(values) > 0 and max(values) / min(values) > 8


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _range(values: Sequence[float] | Float[np.ndarray, "n"]) -> tuple[float, float]:
    """The lowest and the highest value, never the same."""
    if len(values) == 0:
        return 0.0, 1.0
    low, high = float(min(values)), float(max(values))
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _short(key: str) -> str:
    return key.rsplit(".", maxsplit=1)[-1]
