"""Stones in a row: tic-tac-toe, connect four and their relatives on boards of any size."""

import dataclasses
import functools
import itertools
from typing import Annotated

import numpy as np
from jaxtyping import Array, Bool, Int

from transformer.data.games.positions import EMPTY, OTHER, OWN, Positions
from transformer.errors import ConfigError
from transformer.limits import Whole

Side = Annotated[int, Whole(1, 32)]
_DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))


@dataclasses.dataclass(frozen=True)
class RowGame:
    """Two players place stones in turns; who first has some in a row wins.

    Its fields are `config.task.game`. The defaults are tic-tac-toe. All methods take arrays of
    NumPy or of JAX, and return the same kind.

    Attributes:
        rows: the height of the board.
        columns: its width.
        in_row: how many stones in a row win: across, down or diagonally.
        falls: whether stones fall to the lowest empty square of their column, as in connect four.
            The only legal move in a column is then that square.
    """

    rows: Side = 3
    columns: Side = 3
    in_row: Annotated[int, Whole(2, 32)] = 3
    falls: bool = False

    def check(self) -> None:
        """Refuses a board on which nobody can win."""
        if self.in_row > max(self.rows, self.columns):
            raise ConfigError(
                f"config.task.game.in_row is {self.in_row}: a board of {self.rows} x "
                f"{self.columns} has no such row."
            )

    @property
    def shape(self) -> tuple[int, int]:
        """The number of rows and of columns."""
        return self.rows, self.columns

    @property
    def title(self) -> str:
        """The game in words."""
        if self == RowGame():
            return "tic-tac-toe"
        falling = ", stones fall" if self.falls else ""
        return f"{self.in_row} in a row on {self.rows} x {self.columns}{falling}"

    @functools.cached_property
    def lines(self) -> Int[np.ndarray, "lines k"]:
        """The squares of every row of stones that wins."""
        found = []
        reach = range(self.in_row)
        for row, column in itertools.product(range(self.rows), range(self.columns)):
            for down, right in _DIRECTIONS:
                cells = [(row + down * i, column + right * i) for i in reach]
                last_row, last_column = cells[-1]
                if last_row < self.rows and 0 <= last_column < self.columns:
                    found.append([r * self.columns + c for r, c in cells])
        return np.array(found)

    @functools.cached_property
    def symmetries(self) -> Int[np.ndarray, "symmetries S"]:
        """Ways to turn and mirror the board that change nothing: the square each one comes from."""
        board = np.arange(self.rows * self.columns).reshape(self.shape)
        if self.falls:
            turned = [board]
        elif self.rows == self.columns:
            turned = [np.rot90(board, quarters) for quarters in range(4)]
        else:
            turned = [board, np.rot90(board, 2)]
        both = [image for each in turned for image in (each, each[:, ::-1])]
        return np.array([image.reshape(-1) for image in both])

    def start(self, count: int) -> Positions:
        """Empty boards."""
        squares = self.rows * self.columns
        return Positions(np.zeros((count, squares), np.int8), np.zeros(count, np.int8))

    def legal(self, positions: Positions) -> Bool[np.ndarray, "B S"] | Bool[Array, "B S"]:
        """Which squares can be played; none where the game is over."""
        boards = positions.boards
        free = boards == EMPTY
        if self.falls:
            # The square below is taken, or there is none.
            xp = boards.__array_namespace__()
            bottom = xp.ones_like(free[:, : self.columns])
            free = free & xp.concat([~free[:, self.columns :], bottom], axis=1)
        return free & ~self.lost(positions)[:, None]

    def after(
        self, positions: Positions, moves: Int[np.ndarray, "B"] | Int[Array, "B"]
    ) -> Positions:
        """The positions after these moves, for the other player."""
        boards, players = positions
        xp = boards.__array_namespace__()
        here = xp.arange(boards.shape[1])[None, :] == moves[:, None]
        boards = xp.where(here, xp.asarray(OWN, dtype=boards.dtype), boards)
        # Own stones become those of the other player: 1 and 2 change places.
        return Positions(xp.where(boards == EMPTY, boards, 3 - boards), 1 - players)

    def lost(self, positions: Positions) -> Bool[np.ndarray, "B"] | Bool[Array, "B"]:
        """Whether the player to move has lost: the other has a row."""
        theirs = positions.boards == OTHER
        return theirs[:, self.lines].all(-1).any(-1)

    def outcomes(self, positions: Positions) -> Int[np.ndarray, "B"] | Int[Array, "B"]:
        """-1 where the player to move has lost, else 0: nobody wins by the other's move."""
        return -self.lost(positions).astype(positions.boards.dtype)
