"""What a recogniser hears: a spectrogram, where each token is, and the transcript, as a picture."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from transformer.files import write_picture


class Placed(NamedTuple):
    """A token and the seconds where it is."""

    token: str
    begin: float
    end: float


class Panel(NamedTuple):
    """Weights over time, a row for each token.

    Attributes:
        title: what the weights are.
        weights: a row for each token, a column for each vector of the recording.
        tokens: the names of the rows.
    """

    title: str
    weights: Float[np.ndarray, "U R"]
    tokens: Sequence[str]


def draw_recognition(
    frames: Float[np.ndarray, "T M"],
    seconds: float,
    panels: Sequence[Panel],
    placed: Sequence[Placed],
    title: str,
    path: Path,
) -> None:
    """Draws a spectrogram, the weights under it, and the tokens at their places.

    Args:
        frames: features of the recording.
        seconds: its length.
        panels: weights, all over the whole recording.
        placed: tokens with their places, drawn on the spectrogram.
        title: of the picture, such as the transcript.
        path: the path of the picture.
    """
    # A separate figure, not pyplot: no window system and no global state.
    from matplotlib.figure import Figure

    heights = [2.2, *(0.5 + 0.17 * len(panel.tokens) for panel in panels)]
    width = min(24.0, 3.0 + 3.0 * seconds)
    figure = Figure(figsize=(width, sum(heights) + 0.6), layout="constrained")
    axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    extent = (0.0, seconds, 0.0, float(frames.shape[1]))
    # A few bands without sound must not take all colours.
    low, high = np.percentile(frames, (2.0, 99.8))
    image = np.clip(frames.T, low, high)
    axes[0].imshow(image, origin="lower", aspect="auto", extent=extent, cmap="magma")
    axes[0].set(ylabel="band", yticks=[])
    for one in placed:
        middle = (one.begin + one.end) / 2.0
        axes[0].axvspan(one.begin, one.end, color="white", alpha=0.18, linewidth=0.0)
        axes[0].text(
            *(middle, extent[3]), one.token, ha="center", va="bottom", fontsize=8, parse_math=False
        )
    for place, panel in zip(axes[1:], panels, strict=True):
        count = len(panel.tokens)
        place.imshow(
            panel.weights,
            aspect="auto",
            extent=(0.0, seconds, float(count), 0.0),
            cmap="Blues",
            vmin=0.0,
            interpolation="nearest",
        )
        place.set_yticks(np.arange(count) + 0.5, panel.tokens, fontsize=8, parse_math=False)
        place.set_title(panel.title, fontsize=9, loc="left")
        place.tick_params(axis="y", length=0)
    axes[-1].set_xlabel("seconds")
    figure.suptitle(title, fontsize=10, parse_math=False)
    with warnings.catch_warnings():
        # Characters that the font lacks become boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        write_picture(path, figure)
