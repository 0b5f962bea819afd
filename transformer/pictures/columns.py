"""Images beside their processed versions, as a picture."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from transformer.files import write_picture


def draw_columns(pictures: Mapping[str, Float[np.ndarray, "n Y X C"]], path: Path) -> None:
    """Draws images side by side, a column for each name.

    Args:
        pictures: images with numbers from 0 to 1, the same number for each name.
        path: the path of the picture.
    """
    # A separate figure, not pyplot: no window system and no global state.
    from matplotlib.figure import Figure

    count = len(next(iter(pictures.values())))
    figure = Figure(figsize=(1.7 * len(pictures), 1.6 * count + 0.3), layout="constrained")
    grid = figure.subplots(count, len(pictures), squeeze=False)
    for column, (name, images) in enumerate(pictures.items()):
        grid[0, column].set_title(name, fontsize=8)
        for row, image in enumerate(images):
            shown = image.squeeze(-1) if image.shape[-1] == 1 else image
            grid[row, column].imshow(shown, cmap="gray", vmin=0.0, vmax=1.0)
            grid[row, column].set_axis_off()
    write_picture(path, figure)
