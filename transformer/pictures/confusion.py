"""Confusions of classes as a picture."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from transformer.files import write_picture

# Counts are readable in a picture of up to this many classes.
_FEW_CLASSES = 12
# The most letters of a name in a picture, and the width of a letter in inches.
_NAME_LENGTH, _LETTER = 30, 0.08


def draw_confusion_matrix(matrix: Int[np.ndarray, "c c"], names: Sequence[str], path: Path) -> None:
    """Draws a confusion matrix, each row as shares of its class.

    With few classes, cells show their counts. With many, rare mistakes are drawn darker than in
    proportion, so that they can be seen.

    Args:
        matrix: see `scoring.classification.confusion_matrix`.
        names: names of the classes.
        path: the path of the picture; its folder must exist.
    """
    # A separate figure, not pyplot: no window system and no global state.
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    num_classes = len(names)
    few = num_classes <= _FEW_CLASSES
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    names = [name if len(name) <= _NAME_LENGTH else f"{name[:19]}…{name[-10:]}" for name in names]
    # In inches; hundreds of classes become small, not the picture huge.
    cell = 0.55 if few else min(0.14, 28.0 / num_classes)
    font = 10.0 if few else 50.0 * cell
    size = 1.6 + cell * num_classes + _LETTER * max(map(len, names))
    figure = Figure(figsize=(size + 0.8, size), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(1.0 if few else 0.5, 0.0, 1.0))
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.6, aspect=30)
    # A dollar sign must not begin a formula.
    axes.set_xticks(range(num_classes), names, rotation=90, fontsize=font, parse_math=False)
    axes.set_yticks(range(num_classes), names, fontsize=font, parse_math=False)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("truth")
    count = int(matrix.sum())
    accuracy = np.trace(matrix) / count if count else 0.0
    axes.set_title(f"accuracy {accuracy:.1%} of {count:,}", fontsize=11)
    if few:
        for (row, column), number in np.ndenumerate(matrix):
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{number:,}", ha="center", va="center", color=color, fontsize=8)
    with warnings.catch_warnings():
        # Characters that the font lacks become boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        write_picture(path, figure)
