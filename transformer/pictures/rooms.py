"""Walks through rooms as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int
from matplotlib.axes import Axes

from transformer.data.games.rooms import Episodes, Rooms
from transformer.files import write_picture

_KEY, _DOOR, _PATH, _LINES, _UNPAID = "#e0a458", "#8c5a3c", "#2f6db3", "#d4d4d4", "#c8553d"
# In inches: how wide a room is, the space between two walks, above rooms and below them.
_WIDE, _GAP, _TITLE, _BELOW = 1.15, 0.3, 0.4, 0.35


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

    width, height = (3 * _WIDE + _GAP) * count, (_WIDE + _TITLE + _BELOW) * len(walks)
    # Places are exact. With those of a layout engine a thin line between two pixels was drawn on
    # one of them in one run and on the other in another.
    figure = Figure(figsize=(width, height))
    for row, (name, episodes) in enumerate(walks.items(), 1):
        bottom = height - (_WIDE + _TITLE + _BELOW) * row + _BELOW
        top = (bottom + _WIDE + _TITLE / 2) / height
        figure.text(0.5, top, name, fontsize=10, ha="center", va="center")
        for number in range(count):
            left = (3 * _WIDE + _GAP) * number + _GAP / 2
            places = [(left + _WIDE * room, bottom, _WIDE, _WIDE) for room in range(3)]
            scaled = [np.divide(place, (width, height, width, height)) for place in places]
            axes = [figure.add_axes((*map(float, place),)) for place in scaled]
            _draw_walk(axes, rooms, episodes, number)
            paid, color = ("paid", _PATH) if episodes.paid[number] else ("not paid", _UNPAID)
            middle = (left + 1.5 * _WIDE) / width, (bottom - _BELOW / 2) / height
            figure.text(*middle, paid, fontsize=8, color=color, ha="center", va="center")
    write_picture(path, figure)


def _draw_walk(axes: Sequence[Axes], rooms: Rooms, episodes: Episodes, number: int) -> None:
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
    margin = 0.06 * rooms.side
    rows, columns = visited // rooms.side, visited % rooms.side
    axes.plot(columns, rows, color=_PATH, linewidth=1.4, alpha=0.8)
    axes.plot(columns[:1], rows[:1], "o", color=_PATH, markersize=4)
    axes.set_xlim(edges[0] - margin, edges[-1] + margin)
    axes.set_ylim(edges[-1] + margin, edges[0] - margin)
    axes.set_aspect("equal")
    axes.set_axis_off()
