"""Files of the library `sentencepiece` (Kudo and Richardson 2018)."""

from pathlib import Path
from typing import Any, NamedTuple

from transformer.errors import DataError, MissingDependencyError


class SentencePieces(NamedTuple):
    """A model of SentencePiece.

    Attributes:
        content: of its file.
        processor: the library's object that cuts texts into pieces.
    """

    content: bytes
    processor: Any


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
    if not Path(path).is_file():
        raise DataError(f"{path} does not exist: a SentencePiece model was expected there.")
    content = Path(path).read_bytes()
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(content)
    except RuntimeError as error:
        raise DataError(f"{path} is not a SentencePiece model: {error}") from None
    return SentencePieces(content, processor)
