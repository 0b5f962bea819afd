"""Tokenizers: characters, bytes and byte-pair encoding, all kept in one `tokenizer.json`."""

import functools
from pathlib import Path
from typing import SupportsInt

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from transformer.data.reading import bounds
from transformer.data.reading.library_errors import in_our_words
from transformer.data.reading.text import read_text
from transformer.data.tokenizers import cutting
from transformer.errors import ConfigError, DataError
from transformer.files import write_text

KINDS = ("character", "byte", "bpe")
TOKENIZER_FILE = "tokenizer.json"


class Tokenizer:
    """Text to token ids and back.

    Attributes:
        beginning: int32 ids that stand in front of every text; those of published models may have
            one, ours have none.
    """

    def __init__(self, library_tokenizer: tokenizers.Tokenizer) -> None:
        # A text is never cut short or filled up, whatever a tokenizer.json from elsewhere says.
        library_tokenizer.no_truncation()
        library_tokenizer.no_padding()
        self._tokenizer = library_tokenizer
        self._characters = None
        if isinstance(library_tokenizer.model, models.WordLevel):
            self._characters = frozenset(library_tokenizer.get_vocab())

        self.beginning = self._beginning()
        self._vocab_size = table_size(library_tokenizer)

    @property
    def vocab_size(self) -> int:
        """V, the largest id + 1; there may be ids without a token."""
        return self._vocab_size

    def _beginning(self) -> np.ndarray:
        """What it puts in front of a text, if it puts anything before the text's own tokens."""
        if self._tokenizer.post_processor is None:
            return np.zeros(0, np.int32)
        with in_our_words("the tokenizer cannot encode any text"):
            some, whole = bare_and_whole(self._tokenizer)
        place = next(
            (start for start in range(len(whole)) if whole[start : start + len(some)] == some), 0
        )
        return np.array(whole[:place], np.int32)

    def encode_prompt(self, text: str) -> np.ndarray:
        """Token ids of a text that is to be continued: with the tokens that begin every text.

        Raises:
            DataError: as `encode`.
        """
        return np.concatenate([self.beginning, self.encode(text)])

    def token(self, index: int) -> str:
        """A token by itself, as it is in the vocabulary; empty if there is no such token."""
        return self._tokenizer.id_to_token(index) or ""

    def stands_apart(self, index: int) -> bool:
        """Whether a token is looked for in a text before the text is cut into words."""
        return index in self._tokenizer.get_added_tokens_decoder()

    def encode(self, text: str) -> np.ndarray:
        """Token ids as int32.

        Raises:
            DataError: if the tokenizer knows characters only and the text has another one.
        """
        if self._characters is not None:
            check_characters(text, self._characters, "byte or bpe")
        in_parts = len(text) > cutting.PART and self._is_cuttable
        parts = list(cutting.parts(text)) if in_parts else [text]
        with in_our_words("the tokenizer cannot encode this text"):
            encodings = self._tokenizer.encode_batch_fast(parts, add_special_tokens=False)
        ids = [np.array(encoding.ids, np.int32) for encoding in encodings]
        return np.concatenate(ids) if ids else np.zeros(0, np.int32)

    @functools.cached_property
    def _is_cuttable(self) -> bool:
        return cutting.is_cuttable(self._tokenizer)

    def decode(self, ids: np.ndarray | list[int]) -> str:
        """The text of token ids; incomplete UTF-8 sequences become replacement characters."""
        with in_our_words("the tokenizer cannot decode these tokens"):
            return self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=False)

    def index(self, token: str) -> int | None:
        """The id of a token; None if there is no such token."""
        return self._tokenizer.token_to_id(token)

    def stream(self) -> "TextStream":
        """A decoder for tokens that arrive one by one."""
        return TextStream(self._tokenizer)

    def to_json(self) -> str:
        """The whole tokenizer as text, the same for equal tokenizers."""
        return self._tokenizer.to_str(pretty=True)

    def save(self, folder: Path) -> None:
        """Writes `tokenizer.json`."""
        write_text(folder / TOKENIZER_FILE, self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Reads a `tokenizer.json`.

        Raises:
            DataError: if it is missing or not a tokenizer.
        """
        return cls(read_tokenizer_json(path))

    @classmethod
    def from_text(cls, text: str, where: str | Path) -> "Tokenizer":
        """Reads the text of a `tokenizer.json`.

        Args:
            text: of the file.
            where: it comes from, for messages.

        Raises:
            DataError: if it is not a tokenizer.
        """
        return cls(parse_tokenizer_json(text, where))


class TextStream:
    """Turns tokens into text as soon as they make whole characters."""

    def __init__(self, library_tokenizer: tokenizers.Tokenizer) -> None:
        self._tokenizer = library_tokenizer
        self._stream = decoders.DecodeStream(skip_special_tokens=False)
        self._ids: list[int] = []
        self._text = ""

    def push(self, token: SupportsInt) -> str:
        """The text that `token` completes; empty while a character is unfinished."""
        self._ids.append(int(token))
        piece = self._stream.step(self._tokenizer, int(token)) or ""
        self._text += piece
        return piece

    def close(self) -> str:
        """What the last tokens began and did not complete, as replacement characters."""
        whole = self._tokenizer.decode(self._ids, skip_special_tokens=False)
        return whole[len(self._text) :] if whole.startswith(self._text) else ""


def make_tokenizer(kind: str, text: str, vocab_size: int) -> Tokenizer:
    """A tokenizer for `text`.

    Args:
        kind: `character` (one token per Unicode code point of the text), `byte` (256 tokens),
            `bpe` (byte-level byte-pair encoding, Sennrich et al. 2016, trained on the text), or
            the path of a `tokenizer.json`.
        text: what the character and BPE vocabularies are made from.
        vocab_size: size of the BPE vocabulary.

    Raises:
        ConfigError: if `kind` is none of these.
    """
    if kind == "character":
        return Tokenizer(character_tokenizer(text))
    if kind == "byte":
        return Tokenizer(_byte_level({c: i for i, c in enumerate(byte_alphabet())}))
    if kind == "bpe":
        return Tokenizer(_bpe(text, vocab_size))
    if kind.endswith(".json"):
        return Tokenizer.load(kind)
    raise ConfigError(
        f"config.task.tokenizer is {kind!r}: choose from {', '.join(KINDS)}, "
        f"or give the path of a tokenizer.json."
    )


def bare_and_whole(library_tokenizer: tokenizers.Tokenizer) -> tuple[list[int], list[int]]:
    """The ids of some text that a tokenizer knows, by themselves and with what it puts around."""
    for text in ("a", *sorted(library_tokenizer.get_vocab())):
        try:
            bare = library_tokenizer.encode(text, add_special_tokens=False).ids
        except Exception:  # The library raises bare Exception for a character that it lacks.
            continue
        if bare:
            return bare, library_tokenizer.encode(text, add_special_tokens=True).ids
    return [], []


def table_size(library_tokenizer: tokenizers.Tokenizer) -> int:
    """V: the rows that a table of embeddings must have, which is the largest id + 1."""
    return max(library_tokenizer.get_vocab().values(), default=-1) + 1


def check_characters(text: str, known: frozenset[str], instead: str) -> None:
    """Refuses a text with characters that a tokenizer of characters does not know.

    Args:
        text: what is to be tokenized.
        known: the tokenizer's characters.
        instead: the kinds of tokenizer to recommend, which know every text.

    Raises:
        DataError: if there is such a character; the first five are named.
    """
    unknown = sorted(set(text) - known)
    if unknown:
        shown = ", ".join(f"{c!r} (U+{ord(c):04X})" for c in unknown[:5])
        raise DataError(
            f"the tokenizer does not know {shown}{' and others' if len(unknown) > 5 else ''}: "
            f"it has only the {len(known)} characters of its training text. Leave them out, or "
            f"train with --config.task.tokenizer={instead}, where no character is unknown."
        )


def read_tokenizer_json(path: str | Path) -> tokenizers.Tokenizer:
    """The library's tokenizer of a `tokenizer.json`.

    Raises:
        DataError: if it is missing or not a tokenizer.
    """
    if not Path(path).is_file():
        raise DataError(f"{path} does not exist: a tokenizer.json was expected there.")
    return _of_text(read_text(path, may_be_empty=True), f"{path} is not a tokenizer.json")


def parse_tokenizer_json(text: str, where: str | Path) -> tokenizers.Tokenizer:
    """The library's tokenizer in the text of a `tokenizer.json`.

    Args:
        text: of the file.
        where: it comes from, for messages.

    Raises:
        DataError: if it is not a tokenizer.
    """
    return _of_text(text, f"{where}: its tokenizer is no tokenizer.json")


def _of_text(text: str, wrong: str) -> tokenizers.Tokenizer:
    with in_our_words(wrong):
        return require_ids(tokenizers.Tokenizer.from_str(text), wrong)


def require_ids(library_tokenizer: tokenizers.Tokenizer, wrong: str) -> tokenizers.Tokenizer:
    """Refuses ids so large that tables as long as the largest one have no room.

    Args:
        library_tokenizer: is returned.
        wrong: what is wrong then, with the name of the file.

    Raises:
        DataError: if there is one.
    """
    size = table_size(library_tokenizer)
    if size > bounds.TOKENS:
        raise DataError(f"{wrong}: it has the id {size - 1:,}, and the most is {bounds.TOKENS:,}.")
    return library_tokenizer


def character_tokenizer(text: str) -> tokenizers.Tokenizer:
    """The library's tokenizer with one token for each character of a text, in order."""
    vocabulary = {character: index for index, character in enumerate(sorted(set(text)))}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(vocabulary))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def byte_alphabet() -> list[str]:
    """The 256 characters that stand for bytes in byte-level tokenizers, in order."""
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _byte_level(vocabulary: dict[str, int]) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _bpe(text: str, vocab_size: int) -> tokenizers.Tokenizer:
    if vocab_size < 256:
        raise ConfigError(
            f"config.task.bpe_vocab_size is {vocab_size}: byte-level BPE starts from 256 tokens."
        )
    tokenizer = _byte_level({})
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=byte_alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(cutting.parts(text), trainer)
    return tokenizer
