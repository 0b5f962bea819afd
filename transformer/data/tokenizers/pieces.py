"""The base of encoder tokenizers: five special tokens, and pieces with offsets.

The work is done by the library `tokenizers`. Text that looks like a special token becomes that
token only on request.
"""

import json
import re
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple, SupportsInt

import numpy as np
import tokenizers

from transformer.data.reading.library_errors import in_our_words
from transformer.data.reading.text import SURROGATES
from transformer.data.tokenizers.layouts import layout_of
from transformer.data.tokenizers.protocol import TOKENIZER_FILE, Tokenizer
from transformer.errors import DataError
from transformer.files import write_text

# The file with the names of the special tokens, if they are unusual.
NAMES_FILE = "special_tokens_map.json"
# Texts encoded at once: the library needs about a hundred times more memory for a token than an id.
_BATCH = 512


class Pieces(NamedTuple):
    """The pieces of one text, n of them, without the special tokens around it.

    Attributes:
        ids: `[n]` int32.
        starts: `[n]` int32, index of each piece's first character in the Python string.
        ends: `[n]` int32, index one past its last character. A separate accent at the end of a
            piece, which is dropped, lies outside.
        words: `[n]` int32, number of the word that each piece belongs to, from 0. Numbers may be
            skipped.
    """

    ids: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    words: np.ndarray


class SpecialTokens(NamedTuple):
    """The special tokens of an encoder as they are in the vocabulary.

    Attributes:
        pad: fills up rows that are shorter than their batch.
        unknown: stands for text that the vocabulary cannot cover.
        start: the first token of every input.
        separator: ends each text of an input.
        mask: replaces a token that is to be predicted.
    """

    pad: str
    unknown: str
    start: str
    separator: str
    mask: str


# The names in published files.
NAME_KEYS = {
    "pad": "pad_token",
    "unknown": "unk_token",
    "start": "cls_token",
    "separator": "sep_token",
    "mask": "mask_token",
}


class EncoderTokenizer(Tokenizer):
    """Text to an encoder's pieces and back, saved in one `tokenizer.json`.

    A row of one text is `start A separator`. A row of two has `separators` between them.

    Attributes:
        names: the names of the special tokens.
        separators: how many separators stand between two texts.
        second_type: token type of the second text and the separator after it; all others are 0.
        special: `[V]` bool, which ids are special tokens, `unknown` included.
        continues: `[V]` bool, which ids continue the word of the token before.
        lowercase: whether capitals are lowercased before anything else.
        finds_special: whether special tokens written in a text count as special tokens, unless the
            caller of `pieces` decides.
        first_space: whether the first of given words follows a space like all others, if spaces are
            part of tokens.
    """

    usual_names: ClassVar[SpecialTokens]
    separators: int = 1
    second_type: int = 1
    finds_special: bool = False
    first_space: bool = True

    def __init__(
        self, library_tokenizer: tokenizers.Tokenizer, names: SpecialTokens | None = None
    ) -> None:
        """Wraps a tokenizer, which then neither truncates nor pads.

        Args:
            library_tokenizer: what is saved.
            names: the names of the special tokens; None takes the usual ones.
        """
        self.names = names or self.usual_names
        self._tokenizer = library_tokenizer
        self._variants: dict[tuple[bool, bool], tokenizers.Tokenizer] = {}
        self._lock = threading.Lock()
        layout = layout_of(library_tokenizer)
        if layout is not None:
            self.separators, self.second_type = layout.separators, layout.second_type
        self._vocabulary = library_tokenizer.get_vocab()
        added = library_tokenizer.get_added_tokens_decoder()
        self.special = np.zeros(max(self._vocabulary.values()) + 1, bool)
        self.special[[index for index, token in added.items() if token.special]] = True
        self.continues = np.zeros(len(self.special), bool)
        self.continues[[i for token, i in self._vocabulary.items() if self._goes_on(token)]] = True
        normalizer = library_tokenizer.normalizer
        self.lowercase = normalizer is not None and "A" not in normalizer.normalize_str("A")

    def _goes_on(self, token: str) -> bool:
        """Whether a token of the vocabulary continues the word of the token before."""
        raise NotImplementedError

    def _variant(self, *, words: bool, special: bool) -> tokenizers.Tokenizer:
        """A tokenizer for texts or for words, which finds special tokens in them or does not."""
        raise NotImplementedError

    def _library(self, *, words: bool, special: bool) -> tokenizers.Tokenizer:
        """As `_variant`, but each variant is made once.

        There are several because switching one would not be safe while another thread encodes.
        """
        with self._lock:
            if (words, special) not in self._variants:
                self._variants[words, special] = self._variant(words=words, special=special)
            return self._variants[words, special]

    @staticmethod
    def _require_special(
        library_tokenizer: tokenizers.Tokenizer, names: SpecialTokens, whose: str
    ) -> None:
        """Refuses a vocabulary without a special token.

        Raises:
            DataError: naming those that it lacks.
        """
        vocabulary = library_tokenizer.get_vocab()
        missing = [token for token in names if token not in vocabulary]
        if missing:
            raise DataError(f"the vocabulary lacks {', '.join(missing)}, which {whose} needs.")

    @property
    def vocab_size(self) -> int:
        """The number of tokens, V; every id is below it."""
        return len(self.special)

    @property
    def pad(self) -> int:
        """The id of the token that fills up what is shorter than its batch."""
        return self._vocabulary[self.names.pad]

    @property
    def unknown(self) -> int:
        """The id for what the vocabulary cannot cover."""
        return self._vocabulary[self.names.unknown]

    @property
    def start(self) -> int:
        """The id of the first token of every input."""
        return self._vocabulary[self.names.start]

    @property
    def separator(self) -> int:
        """The id of the token that ends each text of an input."""
        return self._vocabulary[self.names.separator]

    @property
    def mask(self) -> int:
        """The id of the token in place of one that is to be guessed."""
        return self._vocabulary[self.names.mask]

    def pieces(self, texts: Sequence[str], *, special: bool | None = None) -> list[Pieces]:
        """The pieces of each text; the library's threads share the texts.

        Args:
            texts: any text.
            special: whether special tokens written in a text, such as the mask, become special
                tokens, as in published tokenizers. Otherwise they are text. None takes
                `finds_special`.
        """
        special = self.finds_special if special is None else special
        whole = [whole_characters(text) for text in texts]
        return self._encoded(self._library(words=False, special=special), whole, special=special)

    def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of the pieces of each text."""
        return [pieces.ids for pieces in self.pieces(texts)]

    def split_words(self, line: str) -> list[str]:
        """The words of a sentence that is given as a line."""
        return split_words(line)

    def encode_sentences(self, sentences: Sequence[str]) -> list[np.ndarray]:
        """The ids, `[n]` int32, of each of the sentences that make up one text, in order."""
        return self.encode_all(sentences)

    def encode_words(self, sentences: Sequence[Sequence[str]]) -> list[Pieces]:
        """The pieces of sentences that are split into words already, as for tagging.

        Args:
            sentences: of words; special tokens among them are text unless `finds_special`.

        Returns:
            Pieces whose `words` are indices of the given words, and whose `starts` and `ends` are
            places within the word. A word that normalizes to nothing has no piece.
        """
        special = self.finds_special
        whole = [[whole_characters(word) for word in sentence] for sentence in sentences]
        library = self._library(words=True, special=special)
        return self._encoded(library, whole, is_pretokenized=True, special=special)

    def _encoded(
        self,
        library: tokenizers.Tokenizer,
        texts: Sequence[str] | Sequence[list[str]],
        *,
        is_pretokenized: bool = False,
        special: bool = False,
    ) -> list[Pieces]:
        found: list[Pieces] = []
        for start in range(0, len(texts), _BATCH):
            with in_our_words("the tokenizer cannot encode these texts"):
                encodings = library.encode_batch(
                    texts[start : start + _BATCH],
                    is_pretokenized=is_pretokenized,
                    add_special_tokens=False,
                )
            found += [self._pieces(encoding, special) for encoding in encodings]
        return found

    def _pieces(self, encoding: tokenizers.Encoding, special: bool) -> Pieces:
        ids = np.array(encoding.ids, np.int32)
        if not special:
            # A vocabulary may have them among its words, too.
            ids[self.special[ids]] = self.unknown
        starts, ends = np.array(encoding.offsets, np.int32).reshape(-1, 2).T.copy()
        return Pieces(ids, starts, ends, np.array(encoding.word_ids, np.int32))

    def decode(self, ids: Iterable[SupportsInt]) -> str:
        """Readable text: pieces joined to words, special tokens left out."""
        return self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=True)

    def tokens(self, ids: Iterable[SupportsInt]) -> list[str]:
        """Each token by itself, to be shown; empty for an id that has none."""
        return [self._tokenizer.id_to_token(int(i)) or "" for i in ids]

    def save(self, folder: Path) -> None:
        """Writes `tokenizer.json`, and the names of special tokens if they are unusual."""
        write_text(folder / TOKENIZER_FILE, self.to_json())
        if self.names != self.usual_names:
            write_text(folder / NAMES_FILE, self._names_text())

    def _names_text(self) -> str:
        names = self.names._asdict()
        return json.dumps({key: names[field] for field, key in NAME_KEYS.items()}, indent=1)

    def to_json(self) -> str:
        """The content of `tokenizer.json`."""
        return self._tokenizer.to_str(pretty=True)

    def identity(self) -> str:
        """All that `save` writes."""
        return self.to_json() + ("" if self.names == self.usual_names else self._names_text())


def split_words(line: str) -> list[str]:
    """The words of a sentence, as a file has them: between spaces and tabs, and nothing else."""
    return [word for word in re.split("[ \t]+", line.strip()) if word]


def special_tokens(library_tokenizer: tokenizers.Tokenizer) -> set[str]:
    """The tokens that are special in a tokenizer."""
    added = library_tokenizer.get_added_tokens_decoder().values()
    return {token.content for token in added if token.special}


def whole_characters(text: str) -> str:
    """The text with each half of a character replaced by U+FFFD, which BERT drops like controls."""
    return text if text.isascii() else SURROGATES.sub("\ufffd", text)
