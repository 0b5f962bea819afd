"""The tokenizer of an encoder: BERT's word pieces, or RoBERTa's pieces of bytes."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import tokenizers
from tokenizers import models

from transformer.data.reading.json_text import read_json_file
from transformer.data.tokenizers import byte_pieces, word_pieces
from transformer.data.tokenizers.byte_pieces import BytePieceTokenizer, train_byte_pieces
from transformer.data.tokenizers.pieces import NAME_KEYS, NAMES_FILE, EncoderTokenizer
from transformer.data.tokenizers.text import (
    TOKENIZER_FILE,
    parse_tokenizer_json,
    read_tokenizer_json,
)
from transformer.data.tokenizers.word_pieces import WordPieceTokenizer, make_word_piece_tokenizer
from transformer.errors import ConfigError, DataError

KINDS = (*word_pieces.KINDS, *byte_pieces.KINDS)


def make_encoder_tokenizer(
    kind: str, texts: Iterable[str], *, vocab_size: int, lowercase: bool
) -> EncoderTokenizer:
    """A tokenizer of an encoder.

    Args:
        kind: `wordpiece` or `bpe` (trained on the texts; the same texts give the same vocabulary),
            the path of a BERT `vocab.txt` with one token a line, or the path of a `tokenizer.json`
            of either kind.
        texts: what a vocabulary is trained on.
        vocab_size: tokens to train at most, the five special ones included.
        lowercase: of `wordpiece` and `vocab.txt`: as BERT's uncased models do, accents dropped.

    Raises:
        ConfigError: if `kind` is none of these, or `vocab_size` too small.
        DataError: if the file is missing, damaged, or of no encoder, or the texts have no words.
    """
    if kind in byte_pieces.KINDS:
        return train_byte_pieces(texts, vocab_size)
    if kind in word_pieces.KINDS or kind.endswith(".txt"):
        return make_word_piece_tokenizer(kind, texts, vocab_size=vocab_size, lowercase=lowercase)
    if kind.endswith(".json"):
        return _of_library(read_tokenizer_json(kind), kind, _names_beside(Path(kind).parent))
    raise ConfigError(
        f"config.task.tokenizer is {kind!r}: choose from {', '.join(KINDS)}, or give the path of "
        f"a BERT vocab.txt or of a tokenizer.json."
    )


def load_encoder_tokenizer(folder: Path) -> EncoderTokenizer | None:
    """The tokenizer that was saved in a folder; None if there is none.

    Raises:
        DataError: if its file is damaged or of no encoder.
    """
    path = folder / TOKENIZER_FILE
    if not path.is_file():
        return None
    return _of_library(read_tokenizer_json(path), path, _names_beside(folder))


def parse_encoder_tokenizer(
    text: str, where: str | Path, names: Mapping[str, str] | None = None
) -> EncoderTokenizer:
    """The tokenizer of an encoder in the text of a `tokenizer.json`.

    Args:
        text: of the file.
        where: it comes from, for messages.
        names: of its special tokens, by the fields of `SpecialTokens`; those of BERT or RoBERTa
            where there is none.

    Raises:
        DataError: if it is none.
    """
    return _of_library(parse_tokenizer_json(text, where), where, names or {})


def _of_library(
    library_tokenizer: tokenizers.Tokenizer, where: str | Path, names: Mapping[str, str]
) -> EncoderTokenizer:
    is_of_bytes = isinstance(library_tokenizer.model, models.BPE)
    kind, whose = (BytePieceTokenizer, "RoBERTa") if is_of_bytes else (WordPieceTokenizer, "BERT")
    try:
        return kind(library_tokenizer, kind.usual_names._replace(**names))
    except DataError as error:
        raise DataError(f"{where} is not {whose}'s tokenizer.json: {error}") from None


def _names_beside(folder: Path) -> dict[str, str]:
    """What special tokens are called, as far as a file beside the tokenizer says so."""
    path = folder / NAMES_FILE
    if not path.is_file():
        return {}
    try:
        content = read_json_file(path)
        return {
            field: str(content[key]["content"] if isinstance(content[key], dict) else content[key])
            for field, key in NAME_KEYS.items()
            if content.get(key) is not None
        }
    except (DataError, KeyError, TypeError, AttributeError):
        raise DataError(
            f"{path} is damaged: expected names of special tokens, {', '.join(NAME_KEYS.values())}."
        ) from None
