"""The tokenizer of an encoder: BERT's word pieces, RoBERTa's pieces of bytes, ESM's residues."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

import tokenizers
from tokenizers import models

from transformer.data.reading.json_text import read_json_file
from transformer.data.tokenizers.byte_pieces import BytePieceTokenizer, train_byte_pieces
from transformer.data.tokenizers.library import parse_tokenizer_json, read_tokenizer_json
from transformer.data.tokenizers.pieces import NAME_KEYS, NAMES_FILE, EncoderTokenizer
from transformer.data.tokenizers.protocol import TOKENIZER_FILE, Kind
from transformer.data.tokenizers.residues import (
    ResidueTokenizer,
    published_vocabulary,
    residue_tokenizer,
)
from transformer.data.tokenizers.word_pieces import (
    WordPieceTokenizer,
    read_word_pieces,
    train_word_pieces,
)
from transformer.errors import DataError
from transformer.types import Facts

# Our class for each model of the library, and whose it is.
_CLASSES = {
    models.BPE: (BytePieceTokenizer, "RoBERTa"),
    models.WordPiece: (WordPieceTokenizer, "BERT"),
    models.WordLevel: (ResidueTokenizer, "ESM"),
}


def _make(value: str, texts: Iterable[str], vocab_size: int, lowercase: bool) -> EncoderTokenizer:
    """`wordpiece`, `bpe`, `residues`, or the path of a BERT `vocab.txt` or of a `tokenizer.json`.

    The vocabulary size includes the five special tokens; `residues` has ESM's vocabulary whatever
    the texts are. `lowercase` is for `wordpiece` and `vocab.txt`: it also drops accents, as BERT's
    uncased models do.
    """
    if value == "wordpiece":
        return train_word_pieces(texts, vocab_size, lowercase)
    if value == "bpe":
        return train_byte_pieces(texts, vocab_size)
    if value == "residues":
        return residue_tokenizer(published_vocabulary())
    if value.endswith(".txt"):
        return read_word_pieces(value, lowercase)
    return _of_library(read_tokenizer_json(value), value, _names_beside(Path(value).parent))


def _load(folder: Path) -> EncoderTokenizer | None:
    path = folder / TOKENIZER_FILE
    library_tokenizer = read_tokenizer_json(path)
    if type(library_tokenizer.model) not in _CLASSES:
        return None
    return _of_library(library_tokenizer, path, _names_beside(folder))


def parse_encoder_tokenizer(
    text: str, where: str | Path, names: Mapping[str, str] | None = None
) -> EncoderTokenizer:
    """The tokenizer of an encoder in the text of a `tokenizer.json`.

    Args:
        text: the text of the file.
        where: its origin, for messages.
        names: the names of its special tokens, by the fields of `SpecialTokens`; by default those
            of BERT, RoBERTa or ESM.

    Raises:
        DataError: if it is none.
    """
    return _of_library(parse_tokenizer_json(text, where), where, names or {})


def _of_library(
    library_tokenizer: tokenizers.Tokenizer, where: str | Path, names: Mapping[str, str]
) -> EncoderTokenizer:
    # Other models are refused by the class of word pieces.
    kind, whose = _CLASSES.get(type(library_tokenizer.model), _CLASSES[models.WordPiece])
    try:
        return kind(library_tokenizer, kind.usual_names._replace(**names))
    except DataError as error:
        raise DataError(f"{where} is not {whose}'s tokenizer.json: {error}") from None


def _names_beside(folder: Path) -> dict[str, str]:
    """The names of special tokens, as far as a file beside the tokenizer gives them."""
    path = folder / NAMES_FILE
    if not path.is_file():
        return {}
    try:
        content = cast("Facts", read_json_file(path))
        return {
            field: str(content[key]["content"] if isinstance(content[key], dict) else content[key])
            for field, key in NAME_KEYS.items()
            if content.get(key) is not None
        }
    except (DataError, KeyError, TypeError, AttributeError):
        raise DataError(
            f"{path} is damaged: expected names of special tokens, {', '.join(NAME_KEYS.values())}."
        ) from None


KIND = Kind(
    role=EncoderTokenizer,
    values=("wordpiece", "bpe", "residues"),
    files={".txt": "a BERT vocab.txt", ".json": "a tokenizer.json"},
    kept_in=TOKENIZER_FILE,
    make=_make,
    load=_load,
    lowercase=("wordpiece", ".txt"),
)
