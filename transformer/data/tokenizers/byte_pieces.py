"""RoBERTa's pieces: byte-pair encoding of bytes, with the place of each piece in its text.

A text is split into words with the space in front of them, runs of digits, of signs and of white
space (Radford et al. 2019, GPT-2, and its published code), and each is put together from its bytes
by the merges that training found (Sennrich et al. 2016). So no text is unknown. RoBERTa has the
same pieces and special tokens of its own (Liu et al. 2019, section 4.4).
"""

import json
from collections.abc import Iterable, Sequence
from typing import SupportsInt

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from transformer.data.tokenizers.layouts import Layout, layout_of
from transformer.data.tokenizers.library import byte_alphabet
from transformer.data.tokenizers.pieces import (
    EncoderTokenizer,
    Pieces,
    SpecialTokens,
    special_tokens,
    whole_characters,
)
from transformer.errors import ConfigError, DataError

SPECIAL_TOKENS = SpecialTokens("<pad>", "<unk>", "<s>", "</s>", "<mask>")

# Merges that occur only once are useless.
_MIN_FREQUENCY = 2
# The letters that stand for ASCII white space in a byte-level vocabulary.
_BLANKS = tuple(
    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(
        " \t\n\r\v\f"
    )[0][0]
)


class BytePieceTokenizer(EncoderTokenizer):
    """Text to RoBERTa's pieces and back.

    Two texts have two separators between them, and no token types. A piece's place is that of the
    characters that its bytes are of, without white space around them; only pieces that are nothing
    but white space have its place. Several pieces may share a character.

    Words are separated by white space: `continues` holds for all pieces that do not begin with it.
    Words that are given one by one get a space in front, as in a text.
    """

    usual_names = SPECIAL_TOKENS
    separators = 2
    second_type = 0

    def __init__(
        self, library_tokenizer: tokenizers.Tokenizer, names: SpecialTokens = SPECIAL_TOKENS
    ) -> None:
        """Wraps a tokenizer; its padding and truncation are ignored.

        Args:
            library_tokenizer: the tokenizer. Its layout of special tokens around texts is kept if
                rows can have it; otherwise it is RoBERTa's.
            names: the names of its special tokens.

        Raises:
            DataError: if its model is not BPE of bytes or lacks one of RoBERTa's special tokens.
        """
        model, bytes_of = library_tokenizer.model, library_tokenizer.pre_tokenizer
        if not isinstance(model, models.BPE):
            raise DataError(
                f"the tokenizer's model is {type(model).__name__}: RoBERTa needs one of BPE."
            )
        if not isinstance(bytes_of, pre_tokenizers.ByteLevel):
            raise DataError(
                f"it splits texts by {type(bytes_of).__name__}: RoBERTa needs ByteLevel alone."
            )
        self._require_special(library_tokenizer, names, "RoBERTa")
        library_tokenizer.no_truncation()
        library_tokenizer.no_padding()
        known = special_tokens(library_tokenizer)
        library_tokenizer.add_special_tokens([t for t in _added(names) if t.content not in known])
        if library_tokenizer.decoder is None:
            library_tokenizer.decoder = decoders.ByteLevel()
        vocabulary = library_tokenizer.get_vocab()
        usual = Layout(names.start, names.separator, self.separators, self.second_type)
        if layout_of(library_tokenizer) in (None, usual):
            # For other programs: they expect the tokenizer.json to add the special tokens.
            library_tokenizer.post_processor = processors.RobertaProcessing(
                (names.separator, vocabulary[names.separator]),
                (names.start, vocabulary[names.start]),
                add_prefix_space=bytes_of.add_prefix_space,
            )
        super().__init__(library_tokenizer, names)

    def _variant(self, *, words: bool, special: bool) -> tokenizers.Tokenizer:
        found = _untrimmed(self._tokenizer)
        found.encode_special_tokens = not special
        if words:
            bytes_of = self._tokenizer.pre_tokenizer
            found.pre_tokenizer = pre_tokenizers.ByteLevel(
                add_prefix_space=True, use_regex=bytes_of.use_regex
            )
        return found

    def _goes_on(self, token: str) -> bool:
        return not token.startswith(_BLANKS) and token not in self.names

    def pieces(self, texts: Sequence[str], *, special: bool | None = None) -> list[Pieces]:
        """As `EncoderTokenizer.pieces`."""
        found = super().pieces(texts, special=special)
        return [_trimmed(pieces, text) for pieces, text in zip(found, texts, strict=True)]

    def encode_words(self, sentences: Sequence[Sequence[str]]) -> list[Pieces]:
        """As `EncoderTokenizer.encode_words`: a space between words is part of the later one."""
        whole = [[whole_characters(word) for word in sentence] for sentence in sentences]
        joined = [" ".join(word for word in sentence if word) for sentence in whole]
        special = self.finds_special
        library = self._library(words=self.first_space, special=special)
        found = self._encoded(library, joined, special=special)
        return [_of_words(pieces, words) for pieces, words in zip(found, whole, strict=True)]

    def encode_sentences(self, sentences: Sequence[str]) -> list[np.ndarray]:
        """As `EncoderTokenizer.encode_sentences`: all but the first follow a space."""
        spaced = [f" {sentence}" if sentence else "" for sentence in sentences[1:]]
        return super().encode_sentences([*sentences[:1], *spaced])

    def tokens(self, ids: Iterable[SupportsInt]) -> list[str]:
        """As `EncoderTokenizer.tokens`, with their spaces; U+FFFD for a part of a character."""
        return [self._tokenizer.decode([int(i)], skip_special_tokens=False) for i in ids]


def _added(names: SpecialTokens = SPECIAL_TOKENS) -> list[tokenizers.AddedToken]:
    """The special tokens as the library knows them, in the order of their ids in RoBERTa."""
    # The mask includes the space in front of it, like the word that it replaces.
    order = (names.start, names.pad, names.separator, names.unknown, names.mask)
    return [
        tokenizers.AddedToken(token, special=True, normalized=False, lstrip=token == names.mask)
        for token in order
    ]


def _untrimmed(library_tokenizer: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """A copy that adds nothing and leaves pieces their white space."""
    content = json.loads(library_tokenizer.to_str())
    return tokenizers.Tokenizer.from_str(json.dumps({**content, "post_processor": None}))


def _of_words(pieces: Pieces, words: Sequence[str]) -> Pieces:
    """Pieces of words with spaces between, as pieces of the words themselves."""
    numbers = np.array([number for number, word in enumerate(words) if word], np.int32)
    sizes = np.array([len(words[number]) for number in numbers], np.int32)
    # The end of each word, and its beginning; a space that is part of a piece is the later word's.
    stops = np.cumsum(sizes + 1) - 1
    place = np.searchsorted(stops - 1, pieces.starts)
    place = np.minimum(place, max(len(numbers) - 1, 0))
    if not len(numbers):
        return pieces
    begins = (stops - sizes)[place]
    return Pieces(
        pieces.ids,
        np.maximum(pieces.starts - begins, 0).astype(np.int32),
        np.clip(pieces.ends - begins, 0, sizes[place]).astype(np.int32),
        numbers[place],
    )


def _trimmed(pieces: Pieces, text: str) -> Pieces:
    """Pieces without white space around their characters, unless they have no other."""
    size = len(text)
    places = np.arange(size)
    blank = np.fromiter(map(str.isspace, text), bool, size)
    # The first character from a place on that is not blank, and the end of the last one before.
    after = np.minimum.accumulate(np.append(np.where(blank, size, places), size)[::-1])[::-1]
    before = np.maximum.accumulate(np.append(0, np.where(blank, 0, places + 1)))
    starts, ends = after[pieces.starts], before[pieces.ends]
    full = starts < ends
    return pieces._replace(
        starts=np.where(full, starts, pieces.starts).astype(np.int32),
        ends=np.where(full, ends, pieces.ends).astype(np.int32),
    )


def train_byte_pieces(texts: Iterable[str], vocab_size: int) -> BytePieceTokenizer:
    """A tokenizer with the most frequent merges of some texts, the same for the same texts.

    Args:
        texts: to count in.
        vocab_size: the most tokens: the special ones, all bytes and the merges.

    Raises:
        ConfigError: if there is no room for special tokens and bytes.
    """
    least = len(SPECIAL_TOKENS) + len(byte_alphabet())
    if vocab_size < least:
        raise ConfigError(
            f"config.task.tokenizer.size is {vocab_size}: the special tokens and all bytes alone "
            f"need {least}."
        )
    library_tokenizer = tokenizers.Tokenizer(models.BPE())
    library_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=_MIN_FREQUENCY,
        special_tokens=_added(),
        initial_alphabet=byte_alphabet(),
        show_progress=False,
    )
    library_tokenizer.train_from_iterator(map(whole_characters, texts), trainer)
    return BytePieceTokenizer(library_tokenizer)
