"""Boards of games as a picture, with what a model thinks of each move."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes

from transformer.files import write_picture

# A side of a square, and the space above a board, in inches.
_SQUARE, _ABOVE = 0.62, 0.75
# Smaller probabilities are not written.
_LEAST = 0.005
_STONES = {1: "#22313f", 2: "#e0a458"}
# The red of illegal moves, where it is read on a light stone.
_ON_LIGHT = "#7a1508"


def draw_boards(
    boards: Int[np.ndarray, "n R C"],
    probabilities: Float[np.ndarray, "n R C"],
    legal: Bool[np.ndarray, "n R C"],
    titles: Sequence[str],
    path: Path,
    *,
    most_columns: int = 4,
) -> None:
    """Draws positions: stones as discs, and the probability of each move as a shade of blue.

    What a model gives to illegal moves is red.

    Args:
        boards: 0 for empty squares, 1 (dark) for the player who began, 2 (light) for the other.
        probabilities: of each square as the next move.
        legal: which moves are legal.
        titles: a line above each board.
        path: the path of the picture.
        most_columns: how many boards are side by side.
    """
    # A separate figure, not pyplot: no window system and no global state.
    from matplotlib.figure import Figure

    count, rows, columns = boards.shape
    across = min(count, most_columns)
    down = math.ceil(count / across)
    size = max(2.2, _SQUARE * columns) * across, (_SQUARE * rows + _ABOVE) * down
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(down, across, squeeze=False).reshape(-1)
    for place, axes in enumerate(grid):
        if place < count:
            _draw_board(axes, boards[place], probabilities[place], legal[place])
            axes.set_title(titles[place], fontsize=9, parse_math=False)
        else:
            axes.set_axis_off()
    write_picture(path, figure)


def _draw_board(
    axes: Axes,
    board: Int[np.ndarray, "R C"],
    probabilities: Float[np.ndarray, "R C"],
    legal: Bool[np.ndarray, "R C"],
) -> None:
    from matplotlib.patches import Circle, Rectangle

    rows, columns = board.shape
    font = 9 if columns <= 8 else 6
    for (row, column), piece in np.ndenumerate(board):
        chance, allowed = float(probabilities[row, column]), bool(legal[row, column])
        color = "#2f6db3" if allowed else "#c8553d"
        corner = column - 0.5, row - 0.5
        axes.add_patch(Rectangle(corner, 1, 1, facecolor="white", edgecolor="#b8b8b8"))
        if chance >= _LEAST:
            axes.add_patch(Rectangle(corner, 1, 1, facecolor=color, alpha=min(1.0, chance)))
        if piece:
            stone = Circle((column, row), 0.38, facecolor=_STONES[int(piece)], edgecolor="#22313f")
            axes.add_patch(stone)
        if chance >= _LEAST:
            text = f"{chance:.0%}" if chance >= 0.0995 else f"{100 * chance:.1f}"
            red = _ON_LIGHT if piece == 2 else color
            shade = "white" if chance > 0.6 or piece == 1 else "black" if allowed else red
            axes.text(column, row, text, ha="center", va="center", fontsize=font, color=shade)
    axes.set_xlim(-0.55, columns - 0.45)
    axes.set_ylim(rows - 0.45, -0.55)
    axes.set_aspect("equal")
    letters = [chr(ord("a") + column) for column in range(columns)]
    axes.set_xticks(range(columns), letters, fontsize=8)
    axes.set_yticks(range(rows), [str(row + 1) for row in range(rows)], fontsize=8)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
