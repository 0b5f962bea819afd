"""Games of chess in PGN files, as moves: where a piece comes from, where it goes, what it becomes.

The rules are those of the package `chess` (python-chess). Files are read here, because its reader
leaves out what it does not understand and says nothing.
"""

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from transformer.data.reading.text import read_text
from transformer.errors import DataError, MissingDependencyError

_SIDE = 8
# What reaches every square that any piece can reach: a queen, and a knight.
_LINES = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1) if row or column]
_JUMPS = [(row, column) for row in (-2, -1, 1, 2) for column in (-2, -1, 1, 2)]
_BECOMES = "nbrq"
# The parts of a PGN file ("Portable Game Notation Specification", 1994, sections 6 to 8).
_PART = re.compile(
    r"""(?P<tag>\[\s*(?P<name>\w+)\s+"(?P<value>(?:[^"\\]|\\.)*)"\s*\])
    | (?P<ignored>\s+ | \{[^}]*\} | ;[^\n]* | ^%[^\n]* | \$\d+ | [!?]+)
    | (?P<open>\() | (?P<close>\))
    | (?P<result>1-0 | 0-1 | 1/2-1/2 | \*)
    | (?P<number>\d+\.+ | \d+(?=\s))
    | (?P<move>[A-Za-z0][\w+#=\-]*)
    | (?P<other>\S+)""",
    re.VERBOSE | re.MULTILINE | re.ASCII,
)
_USUAL = ("", "standard", "chess", "normal")


@functools.cache
def move_names() -> tuple[str, ...]:
    """All moves that there are, in the notation of UCI: `e2e4`, castling `e1g1`, `e7e8q`; 1,968."""
    names = []
    for rank in range(_SIDE):
        for file in range(_SIDE):
            names += _moves_from(rank, file)
    return tuple(names)


def _moves_from(rank: int, file: int) -> list[str]:
    """The moves from a square."""
    steps = [(distance * up, distance * right) for up, right in _LINES for distance in range(1, 8)]
    steps += [(up, right) for up, right in _JUMPS if abs(up) != abs(right)]
    found = []
    for up, right in steps:
        to_rank, to_file = rank + up, file + right
        if not (0 <= to_rank < _SIDE and 0 <= to_file < _SIDE):
            continue
        name = f"{_square(rank, file)}{_square(to_rank, to_file)}"
        found.append(name)
        # A pawn that reaches the last rank.
        if (rank, to_rank) in ((6, 7), (1, 0)) and abs(right) <= 1:
            found += [name + piece for piece in _BECOMES]
    return found


def _square(rank: int, file: int) -> str:
    return f"{'abcdefgh'[file]}{rank + 1}"


class _Game(NamedTuple):
    """A game as it is written: its tags, and its words with the lines they stand in."""

    tags: dict[str, str]
    words: list[tuple[str, int]]


def read_games(paths: Iterable[str | Path]) -> list[list[str]]:
    """The moves of all games in PGN files, plain or compressed with gzip or xz.

    Comments, variations and marks are left out; so are games without moves.

    Raises:
        MissingDependencyError: without the package `chess`.
        DataError: if a file cannot be read; naming the game and the move, if a move is illegal or
            is none; naming the game, if it has other rules or begins elsewhere; if there is no
            move at all.
    """
    chess = _rules("reading games of chess")
    found = [
        _moves(chess, game, f"{path}, game {number}")
        for path in paths
        for number, game in enumerate(_games(read_text(path)), 1)
    ]
    games = [moves for moves in found if moves]
    if not games:
        names = ", ".join(map(str, paths))
        raise DataError(f"{names}: there is no game of chess with moves in it. Give a PGN file.")
    return games


def _games(text: str) -> Iterator[_Game]:
    """The games of a file: each ends with its result, or where tags begin again."""
    game, variations, line = _Game({}, []), [], 1
    for part in _PART.finditer(text):
        word = part[0]
        if part["tag"] is not None:
            if game.words or variations:
                # A variation without end is a word that is no move.
                yield _Game(game.tags, game.words + variations)
                game, variations = _Game({}, []), []
            game.tags[part["name"]] = part["value"]
        elif part["open"]:
            variations.append((word, line))
        elif part["close"] and variations:
            variations.pop()
        elif part["result"] and not variations:
            yield game
            game = _Game({}, [])
        elif (part["move"] or part["other"] or part["close"]) and not variations:
            game.words.append((word, line))
        line += word.count("\n")
    if game.words or variations:
        yield _Game(game.tags, game.words + variations)


def _moves(chess: ModuleType, game: _Game, where: str) -> list[str]:
    """The moves of a game in the notation of UCI."""
    if "White" in game.tags or "Black" in game.tags:
        where += f" ({game.tags.get('White', '?')} - {game.tags.get('Black', '?')})"
    variant = game.tags.get("Variant", "")
    if variant.lower() not in _USUAL:
        raise DataError(f"{where}: it has the rules of {variant}, not of chess. Leave it out.")
    if game.tags.get("FEN", chess.STARTING_FEN) != chess.STARTING_FEN:
        raise DataError(f"{where}: it begins from another position. Leave out such games.")
    board, moves = chess.Board(), []
    for word, line in game.words:
        number, second = divmod(len(moves), 2)
        try:
            move = board.parse_san(word)
            if not move:  # A turn that is left out.
                raise chess.InvalidMoveError
            board.push(move)
            moves.append(move.uci())
        except ValueError as error:
            why = {
                chess.IllegalMoveError: "is illegal",
                chess.AmbiguousMoveError: "is ambiguous",
            }.get(type(error), "is no move")
            raise DataError(
                f"{where}: move {number + 1}{'...' if second else '.'} {word} {why} (line {line})."
            ) from None
    return moves


def num_legal(moves: Sequence[str]) -> int:
    """How many moves at the beginning of a game are legal."""
    board = _rules("the rules of chess").Board()
    for number, name in enumerate(moves):
        try:
            board.push_uci(name)
        except ValueError:
            return number
    return len(moves)


def legal_moves(moves: Sequence[str]) -> list[list[str]]:
    """The moves that were legal at each turn of a game, all of whose moves are legal."""
    board, found = _rules("the rules of chess").Board(), []
    for move in moves:
        found.append([legal.uci() for legal in board.legal_moves])
        board.push_uci(move)
    return found


def _rules(purpose: str) -> ModuleType:
    """The package `chess`.

    Raises:
        MissingDependencyError: if it is not installed.
    """
    try:
        import chess
    except ImportError:
        raise MissingDependencyError("chess", "chess", purpose) from None
    return chess
