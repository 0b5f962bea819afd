"""Spectrograms of sounds beside each other: what was said, and what it should sound like."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from transformer.files import write_picture


class Pictured(NamedTuple):
    """A sound.

    Attributes:
        frames: its features.
        title: what is written above it.
    """

    frames: Float[np.ndarray, "T M"]
    title: str


def draw_spectrograms(
    rows: Sequence[Sequence[Pictured]], seconds_per_frame: float, path: Path
) -> None:
    """Draws rows of spectrograms, all with the same scale of time and of loudness.

    Args:
        rows: each with equally many sounds.
        seconds_per_frame: the time from one frame to the next.
        path: the path of the picture.
    """
    # A separate figure, not pyplot: no window system and no global state.
    from matplotlib.figure import Figure

    longest = max(len(one.frames) for row in rows for one in row) * seconds_per_frame
    low, high = np.percentile(
        np.concatenate([one.frames for row in rows for one in row]), (5, 99.8)
    )
    size = (min(24.0, (1.0 + 2.2 * longest) * len(rows[0])), 1.7 * len(rows) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    places = figure.subplots(len(rows), len(rows[0]), sharex=True, squeeze=False)
    for axes_of_row, row in zip(places, rows, strict=True):
        for axes, one in zip(axes_of_row, row, strict=True):
            count, bands = one.frames.shape
            axes.imshow(
                np.clip(one.frames.T, low, high),
                origin="lower",
                aspect="auto",
                extent=(0.0, count * seconds_per_frame, 0.0, float(bands)),
                cmap="magma",
                vmin=low,
                vmax=high,
            )
            axes.set(xlim=(0.0, longest), yticks=[])
            axes.set_title(one.title, fontsize=9, loc="left", parse_math=False)
    for axes in places[-1]:
        axes.set_xlabel("seconds")
    write_picture(path, figure)
