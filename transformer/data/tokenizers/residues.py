"""The tokenizer of proteins: a token for each residue, as in ESM (Rives et al. 2021).

A text is split at white space and at the tokens of the vocabulary, longer tokens first. In
published models anything else is one unknown token; here it is refused, since it is no residue.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from transformer.data.tokenizers.layouts import Layout, layout_of, template
from transformer.data.tokenizers.pieces import (
    EncoderTokenizer,
    Pieces,
    SpecialTokens,
    special_tokens,
)
from transformer.errors import DataError

SPECIAL_TOKENS = SpecialTokens("<pad>", "<unk>", "<cls>", "<eos>", "<mask>")
# The published vocabulary: amino acids by their frequency, the ambiguous and rare ones, and gaps.
ALPHABET = (
    *("<cls>", "<pad>", "<eos>", "<unk>"),
    *"LAGVSERTIDPKQNFYMHWCXBUZO.-",
    *("<null_1>", "<mask>"),
)
# The amino acids that the genetic code knows.
AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"


class ResidueTokenizer(EncoderTokenizer):
    """Sequences of residues to tokens and back.

    A text with anything else in it is refused; where special tokens are found in texts, `<unk>` may
    be written for an unknown residue.
    """

    usual_names = SPECIAL_TOKENS
    separators = 1
    second_type = 0

    def __init__(
        self, library_tokenizer: tokenizers.Tokenizer, names: SpecialTokens = SPECIAL_TOKENS
    ) -> None:
        """Wraps a tokenizer; its padding and truncation are ignored.

        Args:
            library_tokenizer: the tokenizer. Its layout of special tokens around texts is kept if
                rows can have it; otherwise it is ESM's.
            names: the names of its special tokens.

        Raises:
            DataError: if its model is not WordLevel or lacks one of the special tokens.
        """
        model = library_tokenizer.model
        if not isinstance(model, models.WordLevel):
            raise DataError(
                f"the tokenizer's model is {type(model).__name__}: proteins need one of WordLevel."
            )
        self._require_special(library_tokenizer, names, "ESM")
        if model.unk_token != names.unknown:
            raise DataError(
                f"its unknown token is {model.unk_token!r}: ESM needs {names.unknown!r}."
            )
        library_tokenizer.no_truncation()
        library_tokenizer.no_padding()
        library_tokenizer.add_special_tokens(
            [
                tokenizers.AddedToken(token, special=True, normalized=False)
                for token in names
                if token not in special_tokens(library_tokenizer)
            ]
        )
        vocabulary = library_tokenizer.get_vocab()
        if layout_of(library_tokenizer) is None:
            layout = Layout(names.start, names.separator, self.separators, self.second_type)
            library_tokenizer.post_processor = template(layout, vocabulary)
        # `tokenizer.json` cannot say whether special tokens are found in a text.
        library_tokenizer.encode_special_tokens = True
        super().__init__(library_tokenizer, names)
        self._letters = _letters(vocabulary)

    def _variant(self, *, words: bool, special: bool) -> tokenizers.Tokenizer:
        if not special:
            return self._tokenizer
        return tokenizers.Tokenizer.from_str(self._tokenizer.to_str())

    def _goes_on(self, token: str) -> bool:
        return False

    def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
        """As `EncoderTokenizer.encode_all`; of plain residues by a table, 50 times faster."""
        found = [self._plain(text) for text in texts]
        others = [text for text, ids in zip(texts, found, strict=True) if ids is None]
        slow = iter(super().encode_all(others) if others else ())
        return [next(slow) if ids is None else ids for ids in found]

    def split_words(self, line: str) -> list[str]:
        """As `EncoderTokenizer.split_words`: each residue is a word."""
        return [residue for word in super().split_words(line) for residue in word]

    def _encoded(
        self,
        library: tokenizers.Tokenizer,
        texts: Sequence[str] | Sequence[list[str]],
        *,
        is_pretokenized: bool = False,
        special: bool = False,
    ) -> list[Pieces]:
        found = super()._encoded(library, texts, is_pretokenized=is_pretokenized, special=special)
        for text, pieces in zip(texts, found, strict=True):
            for place in np.flatnonzero(pieces.ids == self.unknown):
                word = text if isinstance(text, str) else text[pieces.words[place]]
                what = word[pieces.starts[place] : pieces.ends[place]]
                before = "" if isinstance(text, str) else "".join(text[: pieces.words[place]])
                behind = len(before) + int(pieces.starts[place])
                if not (special and what == self.names.unknown):
                    raise DataError(
                        f"{_shortened(''.join(text))} has {_shortened(what)} behind "
                        f"{behind} characters, which stands for no residue: expected capitals such "
                        f"as {AMINO_ACIDS}."
                    )
        return found

    def _plain(self, text: str) -> np.ndarray | None:
        """The ids of a text of single letters; None if it has anything else."""
        if not text.isascii():
            return None
        ids = self._letters[np.frombuffer(text.encode("ascii"), np.uint8)]
        return None if np.any(ids < 0) else ids


def residue_tokenizer(
    vocabulary: Mapping[str, int], names: SpecialTokens = SPECIAL_TOKENS
) -> ResidueTokenizer:
    """A tokenizer with a given vocabulary.

    Args:
        vocabulary: tokens and their ids.
        names: the names of its special tokens.

    Raises:
        DataError: if it lacks a special token.
    """
    return ResidueTokenizer(residue_library(vocabulary, names.unknown), names)


def residue_library(vocabulary: Mapping[str, int], unknown: str) -> tokenizers.Tokenizer:
    """The library's tokenizer, without special tokens around texts."""
    library = tokenizers.Tokenizer(models.WordLevel(dict(vocabulary), unk_token=unknown))
    longest_first = sorted(vocabulary, key=lambda token: (-len(token), token))
    pattern = tokenizers.Regex("|".join(map(re.escape, longest_first)))
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(pattern, "isolated")]
    )
    library.decoder = decoders.Fuse()
    return library


def published_vocabulary() -> dict[str, int]:
    """The 33 tokens of ESM-2 and their ids."""
    return {token: index for index, token in enumerate(ALPHABET)}


def _letters(vocabulary: Mapping[str, int]) -> np.ndarray:
    """The id of each ASCII letter that is a token and in no longer token that begins with it."""
    table = np.full(128, -1, np.int32)
    longer = [token for token in vocabulary if len(token) > 1]
    for token, index in vocabulary.items():
        alone = len(token) == 1 and token.isascii() and not token.isspace()
        if alone and not any(other.startswith(token) for other in longer):
            table[ord(token)] = index
    return table


def _shortened(text: str, most: int = 40) -> str:
    return repr(text if len(text) <= most else f"{text[:most]}...")
