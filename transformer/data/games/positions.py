"""What all board games share: positions, the names of squares, and the protocol of rules.

A move is the square on which a stone is placed. A board holds 0 on empty squares, 1 on those of the
player to move and 2 on those of the other player. So a model sees every position with the eyes of
the player to move.
"""

import re
import string
from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Bool, Int

from transformer.errors import DataError

EMPTY, OWN, OTHER = 0, 1, 2
# The results of a game, in the order of a model's outputs, and the value of each.
RESULTS = ("loss", "draw", "win")


class Positions(NamedTuple):
    """B positions, as arrays of NumPy or of JAX.

    Attributes:
        boards: `[B, S]`, int8, the squares row by row from the top.
        players: `[B]`, int8, who is to move: 0 is the player who began.
    """

    boards: Int[np.ndarray, "B S"] | Int[Array, "B S"]
    players: Int[np.ndarray, "B"] | Int[Array, "B"]

    def absolute(self) -> np.ndarray:
        """The boards with 1 for the player who began, and 2 for the other."""
        boards, second = np.asarray(self.boards), np.asarray(self.players)[:, None] == 1
        return np.where(second & (boards > 0), 3 - boards, boards)

    def take(self, rows: np.ndarray | slice | int) -> "Positions":
        """Some of the positions."""
        return Positions(self.boards[rows], self.players[rows])


@runtime_checkable
class Game(Protocol):
    """The rules of a board game, as pure functions of positions."""

    @property
    def shape(self) -> tuple[int, int]:
        """The number of rows and of columns."""
        ...

    @property
    def title(self) -> str:
        """The game in words."""
        ...

    def start(self, count: int) -> Positions:
        """So many empty boards, or what the game begins with."""
        ...

    def legal(self, positions: Positions) -> Bool[np.ndarray, "B S"] | Bool[Array, "B S"]:
        """Which moves are legal; none is where the game is over."""
        ...

    def after(
        self, positions: Positions, moves: Int[np.ndarray, "B"] | Int[Array, "B"]
    ) -> Positions:
        """The positions after legal moves."""
        ...

    def outcomes(self, positions: Positions) -> Int[np.ndarray, "B"] | Int[Array, "B"]:
        """The results of games that are over, for the player to move: -1, 0 or 1."""
        ...


def num_squares(game: Game) -> int:
    """S."""
    rows, columns = game.shape
    return rows * columns


def square_names(game: Game) -> tuple[str, ...]:
    """The names of the squares: a column by letter, then a row from the top by number."""
    rows, columns = game.shape
    return tuple(f"{_letters(column)}{row + 1}" for row in range(rows) for column in range(columns))


def square_of(game: Game, name: str) -> int:
    """The square with a name, as a player writes it.

    Raises:
        DataError: if there is none.
    """
    names = square_names(game)
    if name.strip().lower() not in names:
        raise DataError(
            f"there is no square {name.strip()!r}: they are called {names[0]} (top left) to "
            f"{names[-1]} (bottom right)."
        )
    return names.index(name.strip().lower())


def board_of(game: Game, text: str) -> np.ndarray:
    """The board that a text describes, with 1 for `x` and 2 for `o`.

    Args:
        game: the game.
        text: `x`, `o` or `.` for each square, row by row; spaces and line ends do not count.

    Raises:
        DataError: for other letters, or a board of another size.
    """
    squares = re.sub(r"\s", "", text.lower())
    wrong = sorted(set(squares) - set(".xo"))
    if wrong:
        raise DataError(f"a board has x, o and . for its squares, and this one has {wrong[0]!r}.")
    rows, columns = game.shape
    if len(squares) != rows * columns:
        raise DataError(
            f"this board has {len(squares)} squares: {game.title} has {rows * columns}, "
            f"{rows} rows of {columns}."
        )
    return np.array([".xo".index(letter) for letter in squares], np.int8)


def position_of(game: Game, text: str) -> Positions:
    """The position that a text describes, of players who take turns, as one row.

    Args:
        game: the game.
        text: as in `board_of`; `x` has begun.

    Raises:
        DataError: if it describes none.
    """
    board = board_of(game, text)
    first, second = (int((board == player).sum()) for player in (1, 2))
    if first - second not in (0, 1):
        raise DataError(
            f"this board has {first} x and {second} o: the players take turns, and x begins."
        )
    seen = np.where(board > 0, 3 - board, board) if first > second else board
    return Positions(seen[None].astype(np.int8), np.array([first - second], np.int8))


def played(game: Game, moves: list[int], on_illegal: Callable[[int], str]) -> Positions:
    """The position after some moves from the start, as one row.

    Args:
        game: the game.
        moves: squares.
        on_illegal: the message about the move with this number.

    Raises:
        DataError: if a move is illegal.
    """
    positions = game.start(1)
    for number, move in enumerate(moves):
        if not game.legal(positions)[0, move]:
            raise DataError(on_illegal(number))
        positions = game.after(positions, np.array([move]))
    return positions


def _letters(column: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    more, last = divmod(column, len(string.ascii_lowercase))
    return (_letters(more - 1) if more else "") + string.ascii_lowercase[last]
