"""Positions of board games as prompts."""

from typing import cast

import numpy as np

from transformer.data.games.positions import position_of, square_names
from transformer.errors import DataError
from transformer.explaining.pictures import board_pixels
from transformer.explaining.readings import Grid, Reading, Token, Wanted, require_no_target
from transformer.runs.opening import Run
from transformer.tasks.parts.playing import Plays

_PIECES = (".", "own", "other")


def read_board(run: Run, wanted: Wanted) -> Reading:
    """A position, whose moves are the outputs; the prompt has x, o or . for each square."""
    require_no_target(run, wanted.target)
    game = cast("Plays", run.task).rules()
    positions = position_of(game, wanted.prompt)
    if not np.asarray(game.legal(positions)).any():
        raise DataError("the game is over in this position: no move is left.")
    names = square_names(game)
    rows, columns = game.shape
    squares = (
        Token(f"{name} {_PIECES[piece]}", int(piece), "patch")
        for name, piece in zip(names, positions.boards[0], strict=True)
    )
    return Reading(
        prompt=wanted.prompt,
        family="encoder",
        method="moves",
        inputs=(positions.boards.astype(np.int32),),
        stacks={"encoder": (Token("[game]", -1, "special"), *squares)},
        output="classes",
        names=names,
        picture=board_pixels(positions.boards[0], rows, columns),
        grid=Grid(rows, columns, 1, "board"),
        padded={"encoder": 1 + len(names)},
    )
