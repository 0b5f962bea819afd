"""Sentence tokenizers of the library `tokenizers`, also with tokens for hidden spans."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import SupportsInt

import numpy as np
import tokenizers

from transformer.data.reading.library_errors import in_our_words
from transformer.data.tokenizers.library import bare_and_whole, check_characters
from transformer.data.tokenizers.protocol import TOKENIZER_FILE, SentenceTokenizer
from transformer.files import write_text

# The end tokens of published vocabularies; we add the first if a vocabulary has none.
_ENDS = ("</s>", "<eos>", "<|endoftext|>", "[SEP]", "<|im_end|>")


class LibrarySentenceTokenizer(SentenceTokenizer):
    """A tokenizer of the library `tokenizers`, kept in one `tokenizer.json`."""

    def __init__(self, library_tokenizer: tokenizers.Tokenizer) -> None:
        """Wraps a tokenizer, and adds the end token `</s>` if it has none."""
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
        # The only special token that text may become: the unknown token.
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

    def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The token ids of each text as int32; the library's threads share the texts.

        Raises:
            DataError: if the tokenizer knows characters only and a text has another one.
        """
        if self._characters is not None:
            for text in texts:
                check_characters(text, self._characters, "bpe")
        with in_our_words("the tokenizer cannot encode these lines"):
            encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
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

    def decode(self, ids: Iterable[SupportsInt]) -> str:
        """The sentence; incomplete UTF-8 sequences become replacement characters."""
        with in_our_words("the tokenizer cannot decode these tokens"):
            return self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=False).strip()

    def tokens(self, ids: Iterable[SupportsInt]) -> list[str]:
        """Each token by itself; bytes that are no whole character become replacement characters."""
        return [self._token(int(i)).replace(" ", "▁") for i in ids]

    def _token(self, index: int) -> str:
        # Other decoders than that of bytes drop the mark of a word's start, or of its inside.
        if self._byte_level:
            return self._tokenizer.decode([index], skip_special_tokens=False)
        return self._tokenizer.id_to_token(index) or ""

    def save(self, folder: Path) -> None:
        """Writes `tokenizer.json`."""
        write_text(folder / TOKENIZER_FILE, self.identity())

    def identity(self) -> str:
        """The content of `tokenizer.json`."""
        return self._tokenizer.to_str(pretty=True)


class SentinelTokenizer(SentenceTokenizer):
    """A tokenizer with sentinels, tokens that occur in no text and stand for hidden spans.

    Raffel et al. 2020, section 3.1.4. It is saved without the sentinels.
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

    def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The token ids of each text; never a sentinel."""
        return self._tokenizer.encode_all(texts)

    def decode(self, ids: Iterable[SupportsInt]) -> str:
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

    def tokens(self, ids: Iterable[SupportsInt]) -> list[str]:
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

    def identity(self) -> str:
        """The tokenizer without its sentinels."""
        return self._tokenizer.identity()


def _put_behind(library_tokenizer: tokenizers.Tokenizer) -> str | None:
    """The token that a tokenizer appends to texts, if it adds no other token."""
    with in_our_words("the tokenizer cannot encode any text"):
        bare, whole = bare_and_whole(library_tokenizer)
    if len(whole) != len(bare) + 1 or whole[:-1] != bare:
        return None
    return library_tokenizer.id_to_token(whole[-1])
