"""Othello: the rules on boards of 64 bits, and random games, thousands a second.

A square is a bit; the 8 directions are shifts, so that one operation moves all boards of a batch at
once. Positions have the form that all games share; see `data.games.positions`.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt64

from transformer.data.games.positions import OTHER, OWN, Positions

SIDE = 8
SQUARES = SIDE * SIDE
# The longest game: all squares but the four that are taken at the beginning.
LONGEST = SQUARES - 4

_ALL = (1 << SQUARES) - 1
_LEFT = sum(1 << (SIDE * row) for row in range(SIDE))
_RIGHT = _LEFT << (SIDE - 1)
# The 8 directions: by how many bits a stone moves up or down, and the squares that it can reach.
# Not among these is the edge at which it would enter another row. Square 0 is the lowest bit.
_UP = np.array([1, SIDE, SIDE + 1, SIDE - 1, 0, 0, 0, 0], np.uint64)[:, None]
_DOWN = np.roll(_UP, 4, axis=0)
_REACHED = np.array(
    [
        *(_ALL ^ _LEFT, _ALL, _ALL ^ _LEFT, _ALL ^ _RIGHT),
        *(_ALL ^ _RIGHT, _ALL, _ALL ^ _RIGHT, _ALL ^ _LEFT),
    ],
    np.uint64,
)[:, None]
_BITS = np.uint64(1) << np.arange(SQUARES, dtype=np.uint64)
Bits = UInt64[np.ndarray, "B"]


@dataclasses.dataclass(frozen=True)
class Othello:
    """Othello (Reversi) on 8 x 8 squares, without a clock and without resigning.

    A player without a legal move passes; a pass is not a move. The game is over when neither has
    one; then the one with more stones wins.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """8 rows of 8 columns."""
        return SIDE, SIDE

    @property
    def title(self) -> str:
        """The game in words."""
        return "Othello"

    def start(self, count: int) -> Positions:
        """The beginning, with two stones of each player; who begins owns e4 and d5."""
        own, other = _beginning(count)
        return _unpacked(own, other, np.zeros(count, np.int8))

    def legal(self, positions: Positions) -> Bool[np.ndarray, "B S"]:
        """Which moves are legal; none is where the game is over."""
        return squares_of(legal_moves(*_packed(positions.boards)))

    def after(self, positions: Positions, moves: Int[np.ndarray, "B"]) -> Positions:
        """The positions after legal moves, and after a pass where it follows."""
        own, other, _, passed = played(*_packed(positions.boards), _BITS[moves])
        return _unpacked(own, other, np.where(passed, positions.players, 1 - positions.players))

    def outcomes(self, positions: Positions) -> Int[np.ndarray, "B"]:
        """Who has more stones, for the player to move: -1, 0 or 1."""
        boards = positions.boards
        difference = (boards == OWN).sum(-1) - (boards == OTHER).sum(-1)
        return np.sign(difference).astype(np.int8)


def legal_moves(own: Bits, other: Bits) -> Bits:
    """The squares on which the owner of `own` may place a stone.

    A move is legal if it encloses a line of the other's stones: from a stone of one's own, over one
    to six of the other's, to an empty square.
    """
    line = _lines(own, other)
    return np.bitwise_or.reduce(_shifted(line), axis=0) & ~(own | other)


class Played(NamedTuple):
    """B positions after a move.

    Attributes:
        own: the stones of the player to move.
        other: the stones of the other.
        legal: the legal moves; none if the game is over.
        passed: whether the other had to pass, so that the same player moves again.
    """

    own: Bits
    other: Bits
    legal: Bits
    passed: Bool[np.ndarray, "B"]


def played(own: Bits, other: Bits, move: Bits) -> Played:
    """The positions after legal moves.

    Args:
        own: the stones of the player who moves.
        other: the stones of the other.
        move: the square of each move.
    """
    line = _lines(move, other)
    # A line counts if a stone of one's own is behind it.
    encloses = (_shifted(line) & own) != 0
    flipped = np.bitwise_or.reduce(np.where(encloses, line, np.uint64(0)), axis=0)
    own, other = other & ~flipped, own | move | flipped
    legal = legal_moves(own, other)
    passed = legal == 0
    if passed.any():
        instead = np.where(passed, legal_moves(other, own), np.uint64(0))
        passed, legal = instead != 0, legal | instead
        own, other = np.where(passed, other, own), np.where(passed, own, other)
    return Played(own, other, legal, passed)


def random_games(
    numbers: np.ndarray,
) -> tuple[Int[np.ndarray, "B t"], Bool[np.ndarray, "B t S"]]:
    """Games in which every legal move is equally probable.

    Args:
        numbers: `[B, 60]`, from 0 to 1, one for each move.

    Returns:
        The moves, -1 after the end of a game, and the moves that were legal each time.
    """
    count = len(numbers)
    own, other = _beginning(count)
    legal = legal_moves(own, other)
    moves = np.full((count, LONGEST), -1, np.int8)
    allowed = np.zeros((count, LONGEST, SQUARES), bool)
    for turn in range(LONGEST):
        allowed[:, turn] = squares = squares_of(legal)
        ranks = np.cumsum(squares, axis=-1, dtype=np.int8)
        drawn = (numbers[:, turn] * ranks[:, -1]).astype(np.int8)
        chosen = (ranks > drawn[:, None]).argmax(-1)
        going_on = ranks[:, -1] > 0
        moves[:, turn] = np.where(going_on, chosen, -1)
        # Without a move the position stays as it is: no square is taken, and nothing is flipped.
        after = played(own, other, np.where(going_on, _BITS[chosen], np.uint64(0)))
        own, other, legal = after.own, after.other, after.legal
    return moves, allowed


def boards_of(moves: Int[np.ndarray, "B t"]) -> Int[np.ndarray, "B t S"]:
    """The boards after each move, with the eyes of the player to move then.

    Args:
        moves: the moves of games; -1 after the end of a game, where the board stays as it is.
    """
    own, other = _beginning(len(moves))
    boards = np.zeros((*moves.shape, SQUARES), np.int8)
    for turn, squares in enumerate(moves.T):
        after = played(own, other, np.where(squares >= 0, _BITS[squares], np.uint64(0)))
        going_on = squares >= 0
        own, other = np.where(going_on, after.own, own), np.where(going_on, after.other, other)
        boards[:, turn] = _unpacked(own, other, own).boards
    return boards


def followed(moves: Int[np.ndarray, "B t"]) -> Bool[np.ndarray, "B t S"]:
    """The moves that are legal at each turn of games.

    Args:
        moves: the moves of games; -1 after the end of a game. After an illegal move what follows
            means nothing.
    """
    own, other = _beginning(len(moves))
    legal = legal_moves(own, other)
    allowed = np.zeros((*moves.shape, SQUARES), bool)
    for turn, squares in enumerate(moves.T):
        allowed[:, turn] = squares_of(legal)
        own, other, legal, _ = played(
            own, other, np.where(squares >= 0, _BITS[squares], np.uint64(0))
        )
    return allowed


def squares_of(bits: Bits) -> Bool[np.ndarray, "B S"]:
    """The squares of boards, one after another."""
    as_bytes = bits.astype("<u8").view(np.uint8).reshape(len(bits), SIDE)
    return np.unpackbits(as_bytes, axis=-1, bitorder="little").astype(bool)


def _lines(first: Bits, other: Bits) -> UInt64[np.ndarray, "8 B"]:
    """The other's stones in unbroken lines from some squares on, in each direction."""
    line = _shifted(first[None]) & other
    for _ in range(SIDE - 3):
        line |= _shifted(line) & other
    return line


def _shifted(bits: UInt64[np.ndarray, "#8 B"]) -> UInt64[np.ndarray, "8 B"]:
    """All stones one square further, in each direction."""
    return ((bits << _UP) >> _DOWN) & _REACHED


def _beginning(count: int) -> tuple[Bits, Bits]:
    # Columns are letters, and rows are counted from the top: d4 and e5 are the other's.
    squares = {name: (ord(name[0]) - ord("a")) + SIDE * (int(name[1]) - 1) for name in _FIRST}
    own, other = (
        np.full(count, sum(1 << squares[name] for name in names), np.uint64)
        for names in (_FIRST[:2], _FIRST[2:])
    )
    return own, other


_FIRST = ("e4", "d5", "d4", "e5")


def _packed(boards: np.ndarray) -> tuple[Bits, Bits]:
    return tuple(
        np.packbits(boards == piece, axis=-1, bitorder="little").view("<u8")[:, 0].astype(np.uint64)
        for piece in (OWN, OTHER)
    )


def _unpacked(own: Bits, other: Bits, players: np.ndarray) -> Positions:
    boards = OWN * squares_of(own).astype(np.int8) + OTHER * squares_of(other).astype(np.int8)
    return Positions(boards.astype(np.int8), players.astype(np.int8))
