"""Sentences whose words have tags: read from CoNLL files, and laid out in rows of pieces."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from transformer.data.reading.text import read_text
from transformer.errors import ConfigError, DataError
from transformer.ops.losses import IGNORED

# Begin, inside, end and single of IOB1, IOB2 and IOBES; BILOU says last and unit for the latter.
_ENTITY_TAG = re.compile(r"O|[BIESLU]-\S+")
_COMMENT = re.compile(r"#[ \t]")
_DOCUMENT = "-DOCSTART-"
_SPACES = "[ \t]+"


class TaggedSentences(NamedTuple):
    """The words of each sentence, and one tag for each word."""

    words: list[list[str]]
    tags: list[list[str]]


class AlignedRows(NamedTuple):
    """Sentences as rows of pieces, start and separator around them; n rows, each T wide.

    Attributes:
        tokens: [n, T] int32, filled up with the tokenizer's padding.
        lengths: [n] int32, tokens of each row, start and separator included.
        labels: [n, T] int32, the tag at the first piece of each word, `IGNORED` elsewhere.
        rows: [n] int32, the sentence that each row is of, from 0.
        words: [n, T] int32, the word that a first piece stands for, from 0 within its sentence; -1
            elsewhere.
        cut: [m] bool, which of the m sentences have a word that is longer than a row and was cut.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    words: np.ndarray
    cut: np.ndarray


@runtime_checkable
class WordPieces(Protocol):
    """The pieces of one sentence."""

    @property
    def ids(self) -> np.ndarray:
        """[n] int32, the token of each piece."""
        ...

    @property
    def words(self) -> np.ndarray:
        """[n] int32, the given word that each piece is of, from 0, in ascending order."""
        ...


@runtime_checkable
class PieceTokenizer(Protocol):
    """The methods of a tokenizer that `align` needs; `data.pieces.EncoderTokenizer` has it."""

    @property
    def pad(self) -> int:
        """The token that fills up rows."""
        ...

    @property
    def start(self) -> int:
        """The token before a sentence."""
        ...

    @property
    def separator(self) -> int:
        """The token after a sentence."""
        ...

    def encode_words(self, sentences: Sequence[Sequence[str]]) -> Sequence[WordPieces]:
        """The pieces of each sentence; a word may have none."""
        ...


def read_conll(path: str | Path, *, tag_column: int = -1) -> TaggedSentences:
    """A file in the layout of CoNLL-2003 (Tjong Kim Sang and De Meulder 2003, section 2).

    One word a line, its columns separated by tabs if the first word's line has one, else by spaces.
    The word is the first column. A blank line ends a sentence; `-DOCSTART-` lines are skipped. So
    are lines before the first word of a sentence that start with `#` and white space, as `# id =
    3`, unless they have the columns of a word and end with a tag: `# O` is the word `#`, and so is
    `# SYM` where another word has the tag SYM. Tags may be any, of entities or not.

    Args:
        path: UTF-8 text, plain or gzip.
        tag_column: the column of the tags, from 0, or from -1 for the last one backwards.

    Raises:
        DataError: if the file cannot be read or has no word, a line has another number of columns
            than the first, a word or tag is missing, or a tag has white space in it.
    """
    sentences = TaggedSentences([], [])
    layout = None
    inside = False
    lines = read_text(path).split("\n")
    shapes = _shapes(lines, tag_column)
    for number, raw_line in enumerate(lines, start=1):
        where = f"{path}, line {number}"
        line = raw_line.strip(" ")
        fields = re.split(_SPACES, line)
        if not line.strip("\t") or fields[0] == _DOCUMENT:
            inside = False
            continue
        if (
            not inside
            and _COMMENT.match(line)
            and not (_ENTITY_TAG.fullmatch(fields[-1]) or _shape(fields, tag_column) in shapes)
        ):
            continue
        layout = layout or _layout_of(line, number, tag_column, where)
        columns = layout.split(line)
        if len(columns) != layout.num_columns:
            raise DataError(
                f"{where} has {_count(columns)}, and line {layout.line} has {layout.num_columns}: "
                f"every word needs the same columns, separated by "
                f"{'spaces' if layout.separator == _SPACES else 'tabs'}."
            )
        word, tag = columns[0], columns[tag_column]
        if not word or not tag:
            raise DataError(
                f"{where} has no {'tag' if word else 'word'} in its column: {line!r}. Words that "
                f"are part of no entity have the tag O."
            )
        check_tag(tag, where)
        if not inside:
            sentences.words.append([])
            sentences.tags.append([])
            inside = True
        sentences.words[-1].append(word)
        sentences.tags[-1].append(tag)
    if not sentences.words:
        raise DataError(f"{path} has no words: expected lines such as 'Paris B-LOC'.")
    return sentences


def _shapes(lines: Sequence[str], tag_column: int) -> set[tuple[int, str]]:
    """How many columns there are, and which tags, of lines that can be no comments."""
    rows = (re.split(_SPACES, line.strip(" \r")) for line in lines if not _COMMENT.match(line))
    return {_shape(row, tag_column) for row in rows if len(row) > 1}


def _shape(row: Sequence[str], tag_column: int) -> tuple[int, str]:
    """The number of columns and the tag; no tag if there is no such column."""
    there = -len(row) <= tag_column < len(row)
    return len(row), row[tag_column] if there else ""


def _count(columns: list[str]) -> str:
    return f"{len(columns)} column{'' if len(columns) == 1 else 's'}"


class _Layout(NamedTuple):
    """The columns of a file, as the line of its first word has them."""

    separator: str
    num_columns: int
    line: int

    def split(self, line: str) -> list[str]:
        """The columns of a line."""
        return [column.strip(" ") for column in re.split(self.separator, line)]


def _layout_of(line: str, number: int, tag_column: int, where: str) -> _Layout:
    """The layout of a file, by the line of its first word.

    Raises:
        DataError: if there is no column of tags beside the words.
    """
    layout = _Layout("\t" if "\t" in line else _SPACES, 0, number)
    columns = layout.split(line)
    if len(columns) == 1:
        raise DataError(
            f"{where} has one column: expected a word and its tag, separated by spaces or a tab, "
            f"such as 'Paris B-LOC'."
        )
    if not -len(columns) < tag_column < len(columns) or tag_column == 0:
        raise DataError(
            f"{where} has {_count(columns)}, and the tags are to be in column {tag_column}: "
            f"columns count from 0, the word's, or from -1, the last, backwards."
        )
    return layout._replace(num_columns=len(columns))


def check_tag(tag: str, where: str) -> None:
    """Refuses a text that cannot be a tag.

    Args:
        tag: anything without white space, such as `O`, `B-PER`, `PER` or `NOUN`.
        where: file and line, for the message.

    Raises:
        DataError: if it is something else.
    """
    if not re.fullmatch(r"\S+", tag):
        raise DataError(
            f"{where} has the tag {tag!r}: expected one without white space, such as B-PER or "
            f"NOUN. Name another column if the tags are not in this one."
        )


def tag_ids(sentences: TaggedSentences, known: Sequence[str], where: str) -> list[np.ndarray]:
    """Tags as indices.

    Args:
        sentences: words are only for messages.
        known: tags in the order of their indices.
        where: what the sentences are, such as their file, for messages.

    Returns:
        Of each sentence the index of each word's tag, as int32.

    Raises:
        DataError: if a tag is not known.
    """
    index = {tag: place for place, tag in enumerate(known)}
    found = []
    for number, (words, tags) in enumerate(zip(*sentences, strict=True), start=1):
        for place, tag in enumerate(tags):
            if tag not in index:
                nearest = difflib.get_close_matches(tag, known, n=1, cutoff=0.0)
                hint = f" Nearest: {nearest[0]}." if nearest else ""
                raise DataError(
                    f"{where}: sentence {number}, word {place + 1} ({words[place]!r}) has the tag "
                    f"{tag}, which is none of the {len(known)} known tags.{hint}"
                )
        found.append(np.array([index[tag] for tag in tags], np.int32))
    return found


def align(
    tokenizer: PieceTokenizer,
    words: Sequence[Sequence[str]],
    ids: Sequence[np.ndarray] | None,
    *,
    max_length: int,
) -> AlignedRows:
    """Rows of pieces in which each word that has a piece has its label once.

    The first piece of a word stands for it (Devlin et al. 2019, section 5.3). A sentence that does
    not fit continues in a further row, beginning with a word; a word that is longer than a row is
    cut. A sentence without any piece has no row.

    Args:
        tokenizer: makes the pieces.
        words: the words of each sentence.
        ids: the tag of each word of each sentence; None if there are none to learn from, and all
            labels are `IGNORED`.
        max_length: the width of the rows, T, start and separator included.

    Raises:
        ConfigError: if no piece fits into a row.
    """
    if max_length < 3:
        raise ConfigError(
            f"max_length is {max_length}: at least 3, for a piece between start and separator."
        )
    pieces = tokenizer.encode_words(words)
    room = max_length - 2
    spans = [
        (sentence, first, end)
        for sentence, of_sentence in enumerate(pieces)
        for first, end in _spans(of_sentence.words, room)
    ]
    tokens = np.full((len(spans), max_length), tokenizer.pad, np.int32)
    lengths = np.zeros(len(spans), np.int32)
    labels = np.full_like(tokens, IGNORED)
    first_pieces = np.full_like(tokens, -1)
    for row, (sentence, first, end) in enumerate(spans):
        size = end - first
        lengths[row] = size + 2
        tokens[row, 0] = tokenizer.start
        tokens[row, 1 : size + 1] = pieces[sentence].ids[first:end]
        tokens[row, size + 1] = tokenizer.separator
        of = np.asarray(pieces[sentence].words[first:end])
        places = np.flatnonzero(np.diff(of, prepend=-1))
        first_pieces[row, places + 1] = of[places]
        if ids is not None:
            labels[row, places + 1] = ids[sentence][of[places]]
    sentences = np.array([sentence for sentence, _, _ in spans], np.int32)
    longest = (np.bincount(of_sentence.words).max(initial=0) for of_sentence in pieces)
    cut = np.fromiter((size > room for size in longest), bool, len(pieces))
    return AlignedRows(tokens, lengths, labels, sentences, first_pieces, cut)


def _spans(words: np.ndarray, room: int) -> list[tuple[int, int]]:
    """First piece of each row and one beyond its last; a row starts with a word.

    Args:
        words: [n], the word of each piece.
        room: the most pieces of a row.
    """
    starts = np.flatnonzero(np.diff(words, prepend=-1)).tolist()
    spans: list[tuple[int, int]] = []
    for start, end in zip(starts, [*starts[1:], len(words)], strict=False):
        if spans and end - spans[-1][0] <= room:
            spans[-1] = spans[-1][0], end
        else:
            spans.append((start, min(end, start + room)))
    return spans


def word_tags(
    rows: AlignedRows, predicted: np.ndarray, num_words: Sequence[int], default: int | float
) -> list[list[int | float]]:
    """Predictions of pieces as predictions of words.

    Args:
        rows: the rows of all sentences.
        predicted: [n, T], a number for each piece, such as its tag; read at the first pieces only.
        num_words: the number of words of each sentence.
        default: the number of words that have no piece.

    Returns:
        Of each sentence the number of each word.
    """
    sizes = np.array(num_words, np.int64)
    ends = np.cumsum(sizes)
    tags = np.full(ends[-1] if len(ends) else 0, default, predicted.dtype)
    row, column = np.nonzero(rows.words >= 0)
    tags[(ends - sizes)[rows.rows[row]] + rows.words[row, column]] = predicted[row, column]
    return [of_sentence.tolist() for of_sentence in np.split(tags, ends[:-1])] if len(ends) else []
