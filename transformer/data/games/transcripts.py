"""Games of Othello as people write them down: a line of moves for each game, such as `f5d6c3`."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from transformer.data.games.othello import LONGEST, SIDE, SQUARES, Othello, followed
from transformer.data.games.positions import square_names
from transformer.data.reading.text import read_text
from transformer.errors import DataError

_MOVE = re.compile(r"([a-z][0-9]+)\s*")


class Transcripts(NamedTuple):
    """n whole games.

    Attributes:
        moves: `[n, 60]`, squares; -1 after the end of a game.
        allowed: `[n, 60, 64]`, the moves that were legal each time.
    """

    moves: Int[np.ndarray, "n t"]
    allowed: Bool[np.ndarray, "n t S"]


def read_transcripts(paths: Iterable[str | Path]) -> Transcripts:
    """The games in text files: plain, or compressed with gzip or xz.

    Each line that is not empty is a game. Its moves are squares, with or without spaces between
    them; a pass is not written. A game may stop before its end.

    Raises:
        DataError: if a file cannot be read or is empty; or naming game and move, if a move is
            illegal or no square.
    """
    games, wheres = [], []
    for path in paths:
        lines = read_text(path).split("\n")
        found = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
        for game, (number, line) in enumerate(found, 1):
            where = f"{path}, game {game} (line {number})"
            games.append(_squares(line.strip().lower(), where))
            wheres.append(where)
    moves = np.full((len(games), LONGEST), -1, np.int8)
    for row, squares in zip(moves, games, strict=True):
        row[: len(squares)] = squares
    allowed = followed(moves)
    played = np.take_along_axis(allowed, np.maximum(moves, 0)[..., None].astype(int), -1)[..., 0]
    for game, turn in np.argwhere((moves >= 0) & ~played)[:1]:
        names = square_names(Othello())
        legal = ", ".join(names[square] for square in np.flatnonzero(allowed[game, turn]))
        raise DataError(
            f"{wheres[game]}: move {turn + 1}, {names[moves[game, turn]]}, is illegal; legal is "
            f"{legal or 'none, the game is over'}."
        )
    return Transcripts(moves, allowed)


def _squares(text: str, where: str) -> list[int]:
    """The squares that a line names."""
    names, found, place = square_names(Othello()), [], 0
    while place < len(text):
        move = _MOVE.match(text, place)
        if move is None or move[1] not in names:
            word = text[place:].split(maxsplit=1)[0][:12] if move is None else move[1]
            raise DataError(
                f"{where}: move {len(found) + 1}, {word!r}, is no square of a board of {SIDE} x "
                f"{SIDE}: they are called {names[0]} to {names[-1]}."
            )
        found.append(names.index(move[1]))
        place = move.end()
    if len(found) > LONGEST:
        raise DataError(
            f"{where} has {len(found)} moves: after {LONGEST} all {SQUARES} squares are taken."
        )
    return found
