"""The tokenizer of a language model, by the library `tokenizers`."""

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import SupportsInt

import numpy as np
import tokenizers
from tokenizers import decoders, models

from transformer.data.reading.library_errors import in_our_words
from transformer.data.tokenizers import cutting
from transformer.data.tokenizers.library import bare_and_whole, check_characters, table_size
from transformer.data.tokenizers.protocol import TOKENIZER_FILE, TextStream, TextTokenizer
from transformer.files import write_text


class LibraryTextTokenizer(TextTokenizer):
    """Characters, bytes or byte-pair encoding, kept in one `tokenizer.json`.

    Attributes:
        beginning: int32 ids that are put in front of every text; published tokenizers may have one,
            ours have none.
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
        """The tokens that the tokenizer puts in front of every text, if any."""
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
            DataError: see `encode`.
        """
        return np.concatenate([self.beginning, self.encode(text)])

    def tokens(self, ids: Iterable[SupportsInt]) -> list[str]:
        """Each token by itself, as it is in the vocabulary; empty for an id that has none."""
        return [self._tokenizer.id_to_token(int(i)) or "" for i in ids]

    def stands_apart(self, index: int) -> bool:
        """Whether a token is searched in a text before the text is cut into words."""
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

    def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of each text."""
        return [self.encode(text) for text in texts]

    @functools.cached_property
    def _is_cuttable(self) -> bool:
        return cutting.is_cuttable(self._tokenizer)

    def decode(self, ids: Iterable[SupportsInt]) -> str:
        """The text of token ids; incomplete UTF-8 sequences become replacement characters."""
        with in_our_words("the tokenizer cannot decode these tokens"):
            return self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=False)

    def index(self, token: str) -> int | None:
        """The id of a token; None if there is no such token."""
        return self._tokenizer.token_to_id(token)

    def stream(self) -> "LibraryTextStream":
        """A decoder for tokens that arrive one by one."""
        return LibraryTextStream(self._tokenizer)

    def identity(self) -> str:
        """The content of `tokenizer.json`."""
        return self._tokenizer.to_str(pretty=True)

    def save(self, folder: Path) -> None:
        """Writes `tokenizer.json`."""
        write_text(folder / TOKENIZER_FILE, self.identity())


class LibraryTextStream(TextStream):
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
