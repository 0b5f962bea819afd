"""Files of the library `sentencepiece` (Kudo and Richardson 2018)."""

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from transformer.data.reading.content import read_bounded
from transformer.errors import DataError, MissingDependencyError

if TYPE_CHECKING:
    import sentencepiece

# Kinds of pieces and of models, as `sentencepiece_model.proto` numbers them.
CONTROL, USER_DEFINED = 3, 4
UNIGRAM = 1


class SentencePieces(NamedTuple):
    """A model of SentencePiece.

    Attributes:
        content: the content of its file.
        processor: the library's object that cuts texts into pieces.
    """

    content: bytes
    processor: "sentencepiece.SentencePieceProcessor"


class Piece(NamedTuple):
    """One entry of a vocabulary: its letters, log probability and kind."""

    text: str
    score: float
    kind: int


class PieceTable(NamedTuple):
    """The content of a model's file.

    Attributes:
        pieces: by number.
        kind: the kind of the model; `UNIGRAM` or another.
        character_map: the replacements of characters before cutting, as the library compiles them.
        begins_with_space: whether a text is cut as if it began with a space.
        joins_spaces: whether several spaces count as one, and those around a text not at all.
    """

    pieces: list[Piece]
    kind: int
    character_map: bytes
    begins_with_space: bool
    joins_spaces: bool


def read_sentencepieces(path: str | Path) -> SentencePieces:
    """Reads a model.

    Raises:
        MissingDependencyError: if the library is not installed.
        DataError: if the file is missing, or is no model.
    """
    try:
        import sentencepiece
    except ImportError:
        raise MissingDependencyError(
            "sentencepiece", "sentencepiece", "reading a SentencePiece model"
        ) from None
    content = _content(path)
    # Our parser first: the library does not check that scores are numbers.
    _parsed(content, path)
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(content)
    except RuntimeError as error:
        raise DataError(f"{path} is not a SentencePiece model: {error}") from None
    return SentencePieces(content, processor)


def read_pieces(path: str | Path) -> PieceTable:
    """Reads what a model's file holds; the library is not needed.

    Raises:
        DataError: if the file is missing, or is no model.
    """
    return _parsed(_content(path), path)


def _parsed(content: bytes, path: str | Path) -> PieceTable:
    try:
        return parse_pieces(content)
    except (ValueError, IndexError, struct.error) as error:
        raise DataError(f"{path} is not a SentencePiece model: {error}") from None


def parse_pieces(content: bytes) -> PieceTable:
    """The content of a model's file, a message of Protocol Buffers.

    Raises:
        ValueError: if it is no model.
    """
    pieces: list[Piece] = []
    kind, character_map, begins, joins = UNIGRAM, b"", True, True
    for number, value in _fields(content):
        if number == 1:
            pieces.append(_piece(_message(value)))
        elif number == 2:
            kind = _whole(_message(value).get(3, UNIGRAM))
        elif number == 3:
            found = _message(value)
            character_map = _bytes(found.get(2, b""))
            begins, joins = (bool(_whole(found.get(place, 1))) for place in (3, 4))
    if not pieces:
        raise ValueError("it has no pieces.")
    return PieceTable(pieces, kind, character_map, begins, joins)


def _piece(found: dict[int, int | bytes]) -> Piece:
    if 1 not in found:
        raise ValueError("a piece has no letters.")
    (score,) = struct.unpack("<f", _bytes(found.get(2, bytes(4))))
    if not math.isfinite(score):
        raise ValueError(f"a piece has the score {score}.")
    return Piece(_bytes(found[1]).decode("utf-8"), score, _whole(found.get(3, 1)))


def _message(value: int | bytes) -> dict[int, int | bytes]:
    return dict(_fields(_bytes(value)))


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError(f"it has the number {value} where bytes are expected.")
    return value


def _whole(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise ValueError("it has bytes where a number is expected.")
    return value


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and values of a message's fields: integers, or bytes."""
    place = 0
    while place < len(message):
        key, place = _integer(message, place)
        if key & 7 == 0:
            value, place = _integer(message, place)
            yield key >> 3, value
            continue
        sizes = {1: 8, 5: 4}
        if key & 7 == 2:
            size, place = _integer(message, place)
        elif key & 7 in sizes:
            size = sizes[key & 7]
        else:
            raise ValueError(f"there is no field of kind {key & 7}.")
        if place + size > len(message):
            raise ValueError("it ends within a field.")
        yield key >> 3, message[place : place + size]
        place += size


def _integer(message: bytes, place: int) -> tuple[int, int]:
    """An integer of seven bits a byte, and where it ends."""
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
        if shift > 63:
            raise ValueError("a number has too many bytes.")


def _content(path: str | Path) -> bytes:
    if not Path(path).is_file():
        raise DataError(f"{path} does not exist: a SentencePiece model was expected there.")
    return read_bounded(path)
