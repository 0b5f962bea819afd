"""Tokenizers of sentences for translation: they know a token for the end of a sentence.

A vocabulary is shared by both languages. Encoded sentences are without their end token: who makes
batches appends it to the targets, and starts the decoder's input with it, as fairseq does.
"""

import base64
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from transformer.data.reading.library_errors import in_our_words
from transformer.data.tokenizers.marian import SOURCE_FILE, MarianTokenizer
from transformer.data.tokenizers.sentencepieces import read_sentencepieces
from transformer.data.tokenizers.text import (
    bare_and_whole,
    byte_alphabet,
    character_tokenizer,
    check_characters,
    read_tokenizer_json,
)
from transformer.errors import ConfigError, DataError, WorkdirError
from transformer.files import write_bytes, write_text

KINDS = ("character", "bpe")

# What ends a sentence, or a text, in published vocabularies; we add the first where none is known.
_ENDS = ("</s>", "<eos>", "<|endoftext|>", "[SEP]", "<|im_end|>")
_LIBRARY_FILE = "tokenizer.json"
SENTENCEPIECE_FILE = "tokenizer.model"


@runtime_checkable
class SentenceTokenizer(Protocol):
    """Sentences to token ids and back."""

    @property
    def vocab_size(self) -> int:
        """The number of tokens, V, the end token included; every id is below it."""
        ...

    @property
    def end(self) -> int:
        """The id of the token that ends a sentence and starts the decoder's input."""
        ...

    def encode_lines(self, lines: Sequence[str]) -> list[np.ndarray]:
        """The token ids of each line as int32, without the end token; none for an empty line.

        Nothing that is written in a line makes a special token of it, `</s>` included.

        Raises:
            DataError: if the tokenizer knows characters only and a line has another one.
        """
        ...

    def encode_targets(self, lines: Sequence[str]) -> list[np.ndarray]:
        """The same of what is to be written; unless told otherwise it has the same tokens."""
        return self.encode_lines(lines)

    def decode(self, ids: np.ndarray | list[int]) -> str:
        """The sentence of token ids, without white space around it."""
        ...

    def tokens(self, ids: np.ndarray | list[int]) -> list[str]:
        """Each token by itself, to be read by people; a space is shown as `▁`."""
        ...

    def save(self, folder: Path) -> None:
        """Writes the tokenizer into a folder, for `load_sentence_tokenizer`."""
        ...

    def to_text(self) -> str:
        """The whole tokenizer as text, the same for equal tokenizers."""
        ...


class LibrarySentenceTokenizer(SentenceTokenizer):
    """A tokenizer of the library `tokenizers`, kept in one `tokenizer.json`."""

    def __init__(self, library_tokenizer: tokenizers.Tokenizer) -> None:
        """Takes a tokenizer over, and adds the end token `</s>` if it has none."""
        library_tokenizer.no_truncation()
        library_tokenizer.no_padding()
        known = (token for token in _ENDS if library_tokenizer.token_to_id(token) is not None)
        end = _put_behind(library_tokenizer) or next(known, _ENDS[0])
        # A token that is there keeps its id and becomes a special one.
        library_tokenizer.add_special_tokens(
            [tokenizers.AddedToken(end, special=True, normalized=False)]
        )
        # The library then looks for no special tokens in a text; a tokenizer.json does not say so.
        library_tokenizer.encode_special_tokens = True
        self._tokenizer = library_tokenizer

        vocabulary = library_tokenizer.get_vocab()
        self._end = vocabulary[end]
        self._vocab_size = max(vocabulary.values()) + 1
        description = json.loads(library_tokenizer.to_str())
        self._byte_level = "ByteLevel" in str(description["decoder"])
        model = description["model"]
        # The only special token that a text may become: for what the vocabulary lacks.
        unknown = model.get("unk_id", vocabulary.get(model.get("unk_token")))
        self._special = {
            index: token.content
            for index, token in library_tokenizer.get_added_tokens_decoder().items()
            if token.special and index != unknown
        }
        characters = frozenset(vocabulary) - {end}
        of_characters = model["type"] == "WordLevel" and all(len(c) == 1 for c in characters)
        self._characters = characters if of_characters and unknown is None else None

    @property
    def vocab_size(self) -> int:
        """The number of tokens, V."""
        return self._vocab_size

    @property
    def end(self) -> int:
        """The id of the end token."""
        return self._end

    def encode_lines(self, lines: Sequence[str]) -> list[np.ndarray]:
        """The token ids of each line as int32; the library's threads share the lines.

        Raises:
            DataError: if the tokenizer knows characters only and a line has another one.
        """
        if self._characters is not None:
            for line in lines:
                check_characters(line, self._characters, "bpe")
        with in_our_words("the tokenizer cannot encode these lines"):
            encodings = self._tokenizer.encode_batch_fast(list(lines), add_special_tokens=False)
        return [self._without_special(encoding.ids) for encoding in encodings]

    def _without_special(self, ids: list[int]) -> np.ndarray:
        if not self._special.keys().isdisjoint(ids):
            ids = [part for token in ids for part in self._ordinary(token)]
        return np.array(ids, np.int32)

    def _ordinary(self, token: int) -> Iterable[int]:
        """The token, or what its letters are encoded as if it is special.

        A vocabulary may hold `</s>` among its words, as those of Unigram models do, and the model
        then finds it in a text. Its first letter and the others are encoded by themselves.
        """
        content = self._special.get(token)
        if content is None:
            return [token]
        parts = [part for part in (content[:1], content[1:]) if part]
        found = [token.id for part in parts for token in self._tokenizer.model.tokenize(part)]
        return [index for index in found if index not in self._special]

    def decode(self, ids: np.ndarray | list[int]) -> str:
        """The sentence; incomplete UTF-8 sequences become replacement characters."""
        with in_our_words("the tokenizer cannot decode these tokens"):
            return self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=False).strip()

    def tokens(self, ids: np.ndarray | list[int]) -> list[str]:
        """Each token by itself; bytes that are no whole character become replacement characters."""
        return [self._token(int(i)).replace(" ", "▁") for i in ids]

    def _token(self, index: int) -> str:
        # Other decoders than that of bytes drop the mark of a word's start, or of its inside.
        if self._byte_level:
            return self._tokenizer.decode([index], skip_special_tokens=False)
        return self._tokenizer.id_to_token(index) or ""

    def save(self, folder: Path) -> None:
        """Writes `tokenizer.json`."""
        write_text(folder / _LIBRARY_FILE, self.to_text())

    def to_text(self) -> str:
        """The content of `tokenizer.json`."""
        return self._tokenizer.to_str(pretty=True)


class SentencePieceTokenizer(SentenceTokenizer):
    """A model of the library `sentencepiece` (Kudo and Richardson 2018), kept as it is.

    SentencePiece itself never makes a control token such as `</s>` of a text.

    Attributes:
        content: of the model's file.
    """

    def __init__(self, path: str | Path) -> None:
        """Reads a model.

        Raises:
            MissingDependencyError: if the library is not installed.
            DataError: if the file is missing, is no model, or knows no end of a sentence.
        """
        self.content, self._processor = read_sentencepieces(path)
        if self._processor.eos_id() < 0:
            raise DataError(
                f"{path} has no token for the end of a sentence: train the SentencePiece model "
                f"again with --eos_id set to an id that is not negative, such as 2."
            )

    @property
    def vocab_size(self) -> int:
        """The number of tokens, V."""
        return self._processor.vocab_size()

    @property
    def end(self) -> int:
        """The model's `eos_id`."""
        return self._processor.eos_id()

    def encode_lines(self, lines: Sequence[str]) -> list[np.ndarray]:
        """The token ids of each line as int32; one thread for each core shares the lines."""
        encoded = self._processor.encode(list(lines), out_type=int, num_threads=-1)
        return [np.array(ids, np.int32) for ids in encoded]

    def decode(self, ids: np.ndarray | list[int]) -> str:
        """The sentence; an unknown token is shown as `⁇`."""
        return self._processor.decode([int(i) for i in ids]).strip()

    def tokens(self, ids: np.ndarray | list[int]) -> list[str]:
        """Each token by itself."""
        return [self._processor.id_to_piece(int(i)) for i in ids]

    def save(self, folder: Path) -> None:
        """Writes `tokenizer.model`."""
        write_bytes(folder / SENTENCEPIECE_FILE, self.content)

    def to_text(self) -> str:
        """The content of `tokenizer.model` in base 64."""
        return base64.b64encode(self.content).decode("ascii")


class SentinelTokenizer(SentenceTokenizer):
    """A tokenizer with further tokens behind its own, which no text has: they stand for spans.

    Raffel et al. 2020, section 3.1.4. What is saved is the tokenizer without them.
    """

    def __init__(self, tokenizer: SentenceTokenizer, num_sentinels: int) -> None:
        self._tokenizer, self._num_sentinels = tokenizer, num_sentinels

    @property
    def first_sentinel(self) -> int:
        """The id of the first sentinel; the others follow."""
        return self._tokenizer.vocab_size

    @property
    def vocab_size(self) -> int:
        """The number of tokens, sentinels included."""
        return self.first_sentinel + self._num_sentinels

    @property
    def end(self) -> int:
        """The id of the end token."""
        return self._tokenizer.end

    def encode_lines(self, lines: Sequence[str]) -> list[np.ndarray]:
        """The token ids of each line; never a sentinel."""
        return self._tokenizer.encode_lines(lines)

    def decode(self, ids: np.ndarray | list[int]) -> str:
        """The text, sentinels shown as `<0>`, `<1>`, ..."""
        parts: list[str] = []
        span: list[int] = []
        for index in [*(int(i) for i in ids), self.first_sentinel]:
            if index < self.first_sentinel:
                span.append(index)
                continue
            parts += [self._tokenizer.decode(span), f"<{index - self.first_sentinel}>"]
            span = []
        return " ".join(filter(None, parts[:-1]))

    def tokens(self, ids: np.ndarray | list[int]) -> list[str]:
        """Each token by itself."""
        return [
            self._tokenizer.tokens([index])[0]
            if index < self.first_sentinel
            else f"<{index - self.first_sentinel}>"
            for index in (int(i) for i in ids)
        ]

    def save(self, folder: Path) -> None:
        """Writes the tokenizer without its sentinels."""
        self._tokenizer.save(folder)

    def to_text(self) -> str:
        """The tokenizer without its sentinels."""
        return self._tokenizer.to_text()


def _put_behind(library_tokenizer: tokenizers.Tokenizer) -> str | None:
    """The one token that a tokenizer puts behind texts, if it puts no other and none before."""
    with in_our_words("the tokenizer cannot encode any text"):
        bare, whole = bare_and_whole(library_tokenizer)
    if len(whole) != len(bare) + 1 or whole[:-1] != bare:
        return None
    return library_tokenizer.id_to_token(whole[-1])


def make_sentence_tokenizer(kind: str, lines: Sequence[str], vocab_size: int) -> SentenceTokenizer:
    """A tokenizer for sentences.

    Args:
        kind: `character` (one token per Unicode code point of the lines), `bpe` (byte-level
            byte-pair encoding, Sennrich et al. 2016, trained on the lines of both languages
            together), or the path of a `tokenizer.json` or of a SentencePiece `.model`.
        lines: what the character and BPE vocabularies are made from.
        vocab_size: size of the BPE vocabulary, with the end token.

    Raises:
        ConfigError: if `kind` is none of these, or `vocab_size` too small for BPE.
        DataError: if the file is missing, damaged, or cannot be used.
        MissingDependencyError: if a SentencePiece model is given and its library is missing.
    """
    if kind == "character":
        return LibrarySentenceTokenizer(character_tokenizer("".join(set().union(*lines))))
    if kind == "bpe":
        return LibrarySentenceTokenizer(_bpe(lines, vocab_size))
    if kind.endswith(".json"):
        return LibrarySentenceTokenizer(read_tokenizer_json(kind))
    if kind.endswith(".model"):
        return SentencePieceTokenizer(kind)
    raise ConfigError(
        f"config.task.tokenizer is {kind!r}: choose from {', '.join(KINDS)}, or give the path of "
        f"a tokenizer.json or of a SentencePiece .model."
    )


def load_sentence_tokenizer(folder: Path) -> SentenceTokenizer | None:
    """The tokenizer that was saved in a folder; None if there is none.

    Raises:
        DataError: if its file is damaged.
        MissingDependencyError: if it is a SentencePiece model and the library is missing.
    """
    if (folder / _LIBRARY_FILE).is_file():
        return LibrarySentenceTokenizer(read_tokenizer_json(folder / _LIBRARY_FILE))
    if (folder / SENTENCEPIECE_FILE).is_file():
        return SentencePieceTokenizer(folder / SENTENCEPIECE_FILE)
    if (folder / SOURCE_FILE).is_file():
        return MarianTokenizer(folder)
    return None


def require_sentence_tokenizer(workdir: Path) -> SentenceTokenizer:
    """The tokenizer of a run.

    Raises:
        WorkdirError: if there is none.
    """
    tokenizer = load_sentence_tokenizer(workdir)
    if tokenizer is None:
        raise WorkdirError(
            f"{workdir} has no tokenizer: no tokenizer.json, tokenizer.model or source.spm."
        )
    return tokenizer


def _bpe(lines: Sequence[str], vocab_size: int) -> tokenizers.Tokenizer:
    if vocab_size < 257:
        raise ConfigError(
            f"config.task.bpe_vocab_size is {vocab_size}: byte-level BPE starts from 256 tokens "
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
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer
