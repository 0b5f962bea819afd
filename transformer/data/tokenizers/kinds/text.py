"""Tokenizers of language models: characters, bytes and byte-pair encoding."""

from collections.abc import Iterable
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from transformer.data.tokenizers import cutting
from transformer.data.tokenizers.library import (
    byte_alphabet,
    character_tokenizer,
    read_tokenizer_json,
)
from transformer.data.tokenizers.protocol import TOKENIZER_FILE, Kind, TextTokenizer
from transformer.data.tokenizers.text import LibraryTextTokenizer
from transformer.errors import ConfigError


def _make(value: str, texts: Iterable[str], vocab_size: int, lowercase: bool) -> TextTokenizer:
    """One token per Unicode code point of the texts, 256 tokens for bytes, or byte-level BPE.

    BPE (Sennrich et al. 2016) is trained on the texts. All of them keep capitals.
    """
    if value == "character":
        return LibraryTextTokenizer(character_tokenizer(texts))
    if value == "byte":
        return LibraryTextTokenizer(_byte_level({c: i for i, c in enumerate(byte_alphabet())}))
    if value == "bpe":
        return LibraryTextTokenizer(_bpe(texts, vocab_size))
    return LibraryTextTokenizer(read_tokenizer_json(value))


def _load(folder: Path) -> TextTokenizer:
    return LibraryTextTokenizer(read_tokenizer_json(folder / TOKENIZER_FILE))


def _byte_level(vocabulary: dict[str, int]) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _bpe(texts: Iterable[str], vocab_size: int) -> tokenizers.Tokenizer:
    if vocab_size < 256:
        raise ConfigError(
            f"config.task.tokenizer.size is {vocab_size}: byte-level BPE starts from 256 tokens."
        )
    tokenizer = _byte_level({})
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=byte_alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator((part for text in texts for part in cutting.parts(text)), trainer)
    return tokenizer


KIND = Kind(
    role=TextTokenizer,
    values=("character", "byte", "bpe"),
    files={".json": "a tokenizer.json"},
    kept_in=TOKENIZER_FILE,
    make=_make,
    load=_load,
)
