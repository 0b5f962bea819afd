"""Texts and pairs of texts as rows of an encoder.

They are `[CLS] A [SEP]` and `[CLS] A [SEP] B [SEP]` with BERT's tokenizer, `<s> A </s>` and
`<s> A </s></s> B </s>` with RoBERTa's.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from transformer.data.tokenizers.pieces import EncoderTokenizer


class TextRows(NamedTuple):
    """n texts in rows.

    Attributes:
        tokens: `[n, T]` int32, filled up with padding.
        token_types: `[n, T]` int32, the tokenizer's `second_type` (1 with BERT's) in B and the
            separator after it, 0 elsewhere.
        lengths: `[n]` int32, tokens before the padding.
        cut: `[n]` bool, which texts were too long and were cut.
        unknown: the fraction of the texts' tokens that is unknown.
    """

    tokens: np.ndarray
    token_types: np.ndarray
    lengths: np.ndarray
    cut: np.ndarray
    unknown: float

    @property
    def num_cut(self) -> int:
        """The number of texts that were cut."""
        return int(np.count_nonzero(self.cut))

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name."""
        return {
            "tokens": self.tokens,
            "token_types": self.token_types,
            "lengths": self.lengths,
        }


def lay_out_texts(
    tokenizer: EncoderTokenizer,
    texts: Sequence[str],
    seconds: Sequence[str] | None,
    max_length: int,
    *,
    special: bool | None = None,
) -> TextRows:
    """Rows of `max_length` tokens, the same in training, in evaluation and in use.

    White space around a text is dropped.
    A pair that is too long loses tokens from the end of the longer of its two texts until both are
    equal, and then of both (the published code of Devlin et al. 2019; of an odd number of tokens
    the longer text keeps one more, as in the library `tokenizers`).

    Args:
        tokenizer: makes the pieces.
        texts: A.
        seconds: B; None for single texts.
        max_length: T.
        special: whether special tokens written in a text, such as the mask, count as special
            tokens; None takes the tokenizer's `finds_special`.
    """
    firsts = _ids(tokenizer, texts, special)
    others = None if seconds is None else _ids(tokenizer, seconds, special)
    tokens = np.full((len(firsts), max_length), tokenizer.pad, np.int32)
    types = np.zeros((len(firsts), max_length), np.int32)
    lengths = np.zeros(len(firsts), np.int32)
    cut = np.zeros(len(firsts), bool)
    for row, first in enumerate(firsts):
        second = None if others is None else others[row]
        room = max_length - 2 - (0 if second is None else tokenizer.separators)
        keep = _kept(len(first), 0 if second is None else len(second), room)
        cut[row] = keep[0] < len(first) or (second is not None and keep[1] < len(second))
        ids = [tokenizer.start, *first[: keep[0]], tokenizer.separator]
        if second is not None:
            ids += [tokenizer.separator] * (tokenizer.separators - 1)
            types[row, len(ids) : len(ids) + keep[1] + 1] = tokenizer.second_type
            ids += [*second[: keep[1]], tokenizer.separator]
        tokens[row, : len(ids)] = ids
        lengths[row] = len(ids)
    unknown = np.sum(tokens == tokenizer.unknown) / max(1, np.sum(lengths))
    return TextRows(tokens, types, lengths, cut, float(unknown))


def _ids(
    tokenizer: EncoderTokenizer, texts: Sequence[str], special: bool | None
) -> list[np.ndarray]:
    stripped = [text.strip() for text in texts]
    return [pieces.ids for pieces in tokenizer.pieces(stripped, special=special)]


def _kept(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens of each text stay: the longer text is cut first until both are equal."""
    if first + second <= room:
        return first, second
    shorter, longer = sorted((first, second))
    shorter = min(shorter, room // 2)
    longer = room - shorter
    return (longer, shorter) if first > second else (shorter, longer)
