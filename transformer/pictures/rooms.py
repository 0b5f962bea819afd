"""Walks through rooms as a picture."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Int
from matplotlib.axes import Axes

from transformer.data.games.rooms import Episodes, Rooms
from transformer.files import write_picture

_KEY, _DOOR, _PATH, _LINES = "#e0a458", "#8c5a3c", "#2f6db3", "#d4d4d4"
# A room is so many inches wide.
_WIDE = 1.15


def draw_walks(rooms: Rooms, walks: Mapping[str, Episodes], count: int, path: Path) -> None:
    """Draws the first walks of each kind, each through three rooms side by side.

    Args:
        rooms: the rules.
        walks: the episodes of each kind, by its name.
        count: how many of each are drawn.
        path: the path of the picture.
    """
    # A separate figure, not pyplot: no window system and no global state.
    from matplotlib.figure import Figure

    size = (3 * _WIDE + 0.3) * count, (_WIDE + 0.75) * len(walks)
    figure = Figure(figsize=size, layout="constrained")
    for kind, (name, episodes) in zip(
        figure.subfigures(len(walks), 1, squeeze=False)[:, 0],
        walks.items(),
        strict=True,
    ):
        kind.suptitle(name, fontsize=10)
        for number, one in enumerate(kind.subfigures(1, count, squeeze=False)[0]):
            _draw_walk(one.subplots(1, 3), rooms, episodes, number)
            paid = "paid" if episodes.paid[number] else "not paid"
            one.supxlabel(paid, fontsize=8, color=_PATH if episodes.paid[number] else "#c8553d")
    write_picture(path, figure)


def _draw_walk(axes: np.ndarray, rooms: Rooms, episodes: Episodes, number: int) -> None:
    """One walk: a room on each of three axes."""
    turns = np.arange(rooms.length)
    visited = episodes.squares[number]
    things = {0: ("key", episodes.places.key, _KEY), 2: ("door", episodes.places.door, _DOOR)}
    for room, each in enumerate(axes):
        entrance = episodes.places.entrances[number, room]
        way = np.append(entrance, visited[rooms.room(turns) == room])
        _draw_room(each, rooms, way)
        if room in things:
            name, squares, color = things[room]
            row, column = divmod(int(squares[number]), rooms.side)
            each.text(column, row, name, ha="center", va="center", fontsize=7, color=color)


def _draw_room(axes: Axes, rooms: Rooms, visited: Int[np.ndarray, " moves"]) -> None:
    """A room and the way through it, from the dot."""
    edges = np.arange(rooms.side + 1) - 0.5
    axes.hlines(edges, edges[0], edges[-1], color=_LINES, linewidth=0.6)
    axes.vlines(edges, edges[0], edges[-1], color=_LINES, linewidth=0.6)
    rows, columns = visited // rooms.side, visited % rooms.side
    axes.plot(columns, rows, color=_PATH, linewidth=1.4, alpha=0.8)
    axes.plot(columns[:1], rows[:1], "o", color=_PATH, markersize=4)
    axes.set_xlim(edges[0] - 0.05, edges[-1] + 0.05)
    axes.set_ylim(edges[-1] + 0.05, edges[0] - 0.05)
    axes.set_aspect("equal")
    axes.set_axis_off()
