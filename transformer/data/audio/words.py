"""The words of a transcript, and when each was said."""

import string
from collections.abc import Callable, Sequence
from typing import NamedTuple

# Languages that put no spaces between words: every piece that can be read is a word.
_UNSPACED = frozenset(["zh", "ja", "th", "lo", "my", "yue"])
# Signs that belong to the word behind them, and to the word before them.
_OPENING = "\"'“¡¿([{-"
_CLOSING = "\"'.。,，!！?？:：”)]}、"  # noqa: RUF001
# What the decoder writes for bytes that are no whole character.
_INCOMPLETE = "\ufffd"


class Word(NamedTuple):
    """A word with its signs.

    Attributes:
        start: where it begins, in seconds.
        end: where it ends, in seconds.
        text: as the tokenizer wrote it, mostly with a space in front.
        tokens: its token ids.
    """

    start: float
    end: float
    text: str
    tokens: tuple[int, ...]


class TimedToken(NamedTuple):
    """A token of a text, and when it was said, in seconds."""

    token: int
    start: float
    end: float


def words_of(
    tokens: Sequence[TimedToken], decode: Callable[[Sequence[int]], str], language: str
) -> tuple[Word, ...]:
    """Puts tokens together to words, as the published program does.

    A word begins at a space or at a sign; then signs join the word that they belong to.

    Args:
        tokens: of a text, without marks and times.
        decode: the text of some tokens, with the space that it may begin with.
        language: the code of the language, such as `en`; empty if it is unknown.
    """
    words: list[Word] = []
    for piece in _pieces(tokens, decode):
        is_sign = not piece.text.strip().strip(string.punctuation)
        if language in _UNSPACED or not words or piece.text.startswith(" ") or is_sign:
            words.append(piece)
        else:
            words[-1] = _joined(words[-1], piece)
    return tuple(_with_closing(_with_opening(words)))


def _pieces(tokens: Sequence[TimedToken], decode: Callable[[Sequence[int]], str]) -> list[Word]:
    """The shortest runs of tokens that are whole characters."""
    found, run = [], []
    for index, one in enumerate(tokens):
        run.append(one)
        ids = tuple(each.token for each in run)
        text = decode(ids)
        if _INCOMPLETE not in text or index == len(tokens) - 1:
            found.append(Word(run[0].start, run[-1].end, text, ids))
            run = []
    return found


def _joined(first: Word, second: Word) -> Word:
    return Word(first.start, second.end, first.text + second.text, first.tokens + second.tokens)


def _with_opening(words: Sequence[Word]) -> list[Word]:
    """Signs such as an opening bracket, with the word behind them."""
    found: list[Word] = []
    for word in reversed(words):
        if found and word.text.startswith(" ") and word.text.strip() in _OPENING:
            found[-1] = _joined(word, found[-1])
        else:
            found.append(word)
    return found[::-1]


def _with_closing(words: Sequence[Word]) -> list[Word]:
    """Signs such as a comma, with the word before them."""
    found: list[Word] = []
    for word in words:
        if found and not found[-1].text.endswith(" ") and word.text in _CLOSING:
            found[-1] = _joined(found[-1], word)
        else:
            found.append(word)
    return found
