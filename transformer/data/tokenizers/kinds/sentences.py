"""Sentence tokenizers that are trained here, or read from a `tokenizer.json`."""

from collections.abc import Iterable
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from transformer.data.tokenizers.library import (
    byte_alphabet,
    character_tokenizer,
    read_tokenizer_json,
)
from transformer.data.tokenizers.protocol import TOKENIZER_FILE, Kind, SentenceTokenizer
from transformer.data.tokenizers.sentences import LibrarySentenceTokenizer
from transformer.errors import ConfigError


def _make(value: str, texts: Iterable[str], vocab_size: int, lowercase: bool) -> SentenceTokenizer:
    """One token per Unicode code point of the texts, or byte-level BPE (Sennrich et al. 2016).

    BPE is trained on the texts of both languages together, the end token included in its size.
    Capitals are kept.
    """
    if value == "character":
        return LibrarySentenceTokenizer(character_tokenizer(texts))
    if value == "bpe":
        return LibrarySentenceTokenizer(_bpe(texts, vocab_size))
    return LibrarySentenceTokenizer(read_tokenizer_json(value))


def _load(folder: Path) -> SentenceTokenizer:
    return LibrarySentenceTokenizer(read_tokenizer_json(folder / TOKENIZER_FILE))


def _bpe(texts: Iterable[str], vocab_size: int) -> tokenizers.Tokenizer:
    if vocab_size < 257:
        raise ConfigError(
            f"config.task.tokenizer.size is {vocab_size}: byte-level BPE starts from 256 tokens "
            f"and needs one more for the end of a sentence."
        )
    tokenizer = tokenizers.Tokenizer(models.BPE())
    # The space before a line makes its first word the token that it is elsewhere. Digits are split
    # off by a pattern: `pre_tokenizers.Digits` would give each a space of its own if it came first,
    # and second would take the letters that stand for bytes, as `¼` does in `ü`, for digits.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True),
            pre_tokenizers.Split(tokenizers.Regex("[0-9]"), "isolated"),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1, initial_alphabet=byte_alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


KIND = Kind(
    role=SentenceTokenizer,
    values=("character", "bpe"),
    files={".json": "a tokenizer.json"},
    kept_in=TOKENIZER_FILE,
    make=_make,
    load=_load,
)
