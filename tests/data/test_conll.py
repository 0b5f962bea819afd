import gzip
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformer.data.labels.conll import (
    TaggedSentences,
    align,
    read_conll,
    tag_ids,
    word_tags,
)
from transformer.data.tokenizers.pieces import split_words
from transformer.errors import ConfigError, DataError
from transformer.ops.losses import IGNORED

PAD, START, SEPARATOR, FIRST_LETTER = 0, 1, 2, 3
LONDON = TaggedSentences([["In", "London"], ["Ann"]], [["O", "B-LOC"], ["B-PER"]])


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "file.conll"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


class LetterPieces(NamedTuple):
    ids: np.ndarray
    words: np.ndarray


class LetterTokenizer:
    """Each letter is a piece; what is no letter has none."""

    pad, start, separator = PAD, START, SEPARATOR

    def encode_words(self, sentences):
        return [self._encode(words) for words in sentences]

    def _encode(self, words):
        letters = [
            (ord(letter) - ord("a") + FIRST_LETTER, index)
            for index, word in enumerate(words)
            for letter in word
            if letter.isalpha()
        ]
        ids, places = np.array(letters, np.int32).reshape(-1, 2).T
        return LetterPieces(ids, places)


@pytest.mark.parametrize(
    "content",
    [
        "In O\nLondon B-LOC\n\nAnn B-PER\n",
        "In\tO\nLondon\tB-LOC\n\nAnn\tB-PER",
        "In O\r\nLondon B-LOC\r\n\r\nAnn B-PER\r\n",
        "\n\nIn    O \n London  B-LOC\n \t\n\n\nAnn B-PER\n\n\n",
        "\ufeffIn O\nLondon B-LOC\n\nAnn B-PER\n",
        "In IN x O\nLondon NNP y B-LOC\n\nAnn NNP z B-PER\n",
        "-DOCSTART- -X- -X- O\n\nIn O\nLondon B-LOC\n-DOCSTART- O\nAnn B-PER\n",
        "-DOCSTART-\n\nIn\tO\nLondon\tB-LOC\n\n# id 7\nAnn\tB-PER\n",
        "# a b c\n#\td\nIn O\nLondon B-LOC\n\n# id = 7\nAnn B-PER\n",
        "In\tx\t\tO\nLondon\t\ty\tB-LOC\n\nAnn\t\t\tB-PER\n",
        gzip.compress(b"In O\nLondon B-LOC\n\nAnn B-PER\n", mtime=0),
    ],
)
def test_layouts(write, content):
    assert read_conll(write(content)) == LONDON


def test_another_column(write):
    path = write("In O IN\nLondon B-LOC NNP\n\nAnn B-PER NNP\n")
    assert read_conll(path, tag_column=1) == LONDON
    assert read_conll(path, tag_column=-2) == LONDON


def test_words_may_be_odd(write):
    words = ["#", "\u00a0", "\u2028", "#tag", "-DOCSTART-x", "O"]
    path = write("".join(f"{word} O\n" for word in words))
    assert read_conll(path).words == [words]
    assert read_conll(write("New York\tB-LOC\n# x\tO\n")).words == [["New York", "# x"]]


def test_tags_of_all_schemes(write):
    tags = ["O", "B-A", "I-A", "E-A", "S-A", "L-A", "U-A-B"]
    path = write("".join(f"x {tag}\n" for tag in tags))
    assert read_conll(path).tags == [tags]


def test_tags_of_any_kind(write):
    tags = ["NOUN", "LABEL_0", "PER", "x", "B-", "X-LOC"]
    path = write("".join(f"x {tag}\n" for tag in tags))
    assert read_conll(path).tags == [tags]


def test_a_number_sign_is_a_word_where_it_has_a_tag(write):
    """A comment has other columns than words, or ends with what is no tag of the file."""
    path = write("# newdoc\n# id = 3\n# SYM\n1 NUM\n\n# NUM\n\n+ SYM\n")
    assert read_conll(path).words == [["#", "1"], ["#"], ["+"]]
    path = write(
        "# a b\nParis NNP LOC\n\n# NNP LOC\n",
    )
    assert read_conll(path).words == [["Paris"], ["#"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("-DOCSTART- O\n\n", "no words"),
        ("In\nLondon\n", "line 1 has one column"),
        ("# x\n\nIn O\nLondon NNP B-LOC\n", "line 4 has 3 columns, and line 3 has 2: .*spaces"),
        ("In\tx\tO\nLondon\tB-LOC\n", "line 2 has 2 columns, and line 1 has 3: .*tabs"),
        ("In O\nLondon\n", "line 2 has 1 column, and"),
        ("In O\n# comment inside\n", "line 2 has 3 columns"),
        ("In\tO\nLondon\t\n", "line 2 has no tag"),
        ("In\tO\n\tB-LOC\n", "line 2 has no word"),
        ("In\tB-LOC x\n", "line 1 has the tag 'B-LOC x'"),
        (b"In O\nM\xfcnchen B-LOC\n", "not UTF-8"),
    ],
)
def test_unusable_files(write, content, message):
    path = write(content)
    with pytest.raises(DataError, match=message) as error:
        read_conll(path)
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize("column", [0, -2, 2, -3, 7])
def test_columns_that_cannot_be_tags(write, column):
    with pytest.raises(DataError, match=f"line 1 has 2 columns.* column {column}:"):
        read_conll(write("In O\n"), tag_column=column)


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_conll(tmp_path / "nothing")


def test_tag_ids():
    ids = tag_ids(LONDON, ["B-PER", "O", "B-LOC"], "train.txt")
    assert [of_sentence.tolist() for of_sentence in ids] == [[1, 2], [0]]
    assert all(of_sentence.dtype == np.int32 for of_sentence in ids)


def test_unknown_tag():
    with pytest.raises(DataError) as error:
        tag_ids(LONDON, ["O", "B-LOC", "B-PERSON"], "validation.txt")
    for part in ("validation.txt", "sentence 2, word 1", "'Ann'", "B-PER,", "Nearest: B-PERSON"):
        assert part in str(error.value)


def test_lines_have_the_words_of_files(tmp_path):
    """Where other white space stands in a word, too."""
    words = ["10\xa0000", "a\u2028b", "c\x0bd", "\u3000e\u3000f"]
    path = tmp_path / "a.conll"
    path.write_text("".join(f"{word}\tO\n" for word in words), "utf-8")
    assert read_conll(path).words == [words]
    assert split_words(f"x {words[0]}\t {'  '.join(words[1:])} \r") == ["x", *words]
    assert split_words(" \t ") == []


def test_words_longer_than_a_row_are_told(tmp_path):
    sentences = [["ab", "abcdef"], ["abcde"], [], ["!"]]
    assert align(LetterTokenizer(), sentences, None, max_length=7).cut.tolist() == [True, *3 * [0]]


def test_one_sentence_to_the_token():
    rows = align(LetterTokenizer(), [["ab", "!", "c"]], [np.array([5, 6, 7])], max_length=7)
    a, b, c = range(FIRST_LETTER, FIRST_LETTER + 3)
    assert rows.tokens.tolist() == [[START, a, b, c, SEPARATOR, PAD, PAD]]
    assert rows.lengths.tolist() == [5]
    assert rows.labels.tolist() == [[IGNORED, 5, IGNORED, 7, IGNORED, IGNORED, IGNORED]]
    assert rows.words.tolist() == [[-1, 0, -1, 2, -1, -1, -1]]
    assert rows.rows.tolist() == [0]
    assert all(array.dtype == np.int32 for array in rows._replace(cut=rows.rows))
    assert rows.cut.tolist() == [False]


def test_long_sentences_go_on_at_a_word():
    sentences = [["ab", "cd", "e"], ["!"], ["abcdefg", "h"]]
    rows = align(LetterTokenizer(), sentences, None, max_length=5)
    texts = [
        "".join(chr(token - FIRST_LETTER + ord("a")) for token in row[1 : length - 1])
        for row, length in zip(rows.tokens, rows.lengths, strict=True)
    ]
    assert texts == ["ab", "cde", "abc", "h"]
    assert rows.rows.tolist() == [0, 0, 2, 2]
    assert [row[row >= 0].tolist() for row in rows.words] == [[0], [1, 2], [0], [1]]
    assert (rows.labels == IGNORED).all()


def test_rows_need_room():
    with pytest.raises(ConfigError, match="max_length is 2"):
        align(LetterTokenizer(), [["a"]], None, max_length=2)


def test_no_sentences():
    rows = align(LetterTokenizer(), [], [], max_length=5)
    assert rows.tokens.shape == rows.labels.shape == rows.words.shape == (0, 5)
    assert rows.lengths.shape == rows.rows.shape == (0,)
    assert word_tags(rows, rows.labels, [], 0) == []


WORD = st.text("abc!", max_size=6)
SENTENCES = st.lists(st.lists(WORD, max_size=8), max_size=5)


def with_pieces(word):
    return any(letter.isalpha() for letter in word)


@given(SENTENCES, st.integers(3, 9))
def test_every_word_has_its_label_once(sentences, max_length):
    # Labels tell all words of all sentences apart.
    starts = np.cumsum([0, *map(len, sentences)])
    ids = [start + np.arange(len(words)) for start, words in zip(starts, sentences, strict=False)]
    rows = align(LetterTokenizer(), sentences, ids, max_length=max_length)
    expected = [
        label
        for words, labels in zip(sentences, ids, strict=True)
        for word, label in zip(words, labels, strict=True)
        if with_pieces(word)
    ]
    assert rows.labels[rows.labels != IGNORED].tolist() == expected
    assert ((rows.labels != IGNORED) == (rows.words >= 0)).all()
    got_back = word_tags(rows, rows.labels, [len(words) for words in sentences], -1)
    assert got_back == [
        [int(label) if with_pieces(word) else -1 for word, label in zip(words, labels, strict=True)]
        for words, labels in zip(sentences, ids, strict=True)
    ]


@given(SENTENCES, st.integers(3, 9))
def test_rows_are_full_and_lose_no_piece_that_fits(sentences, max_length):
    rows = align(LetterTokenizer(), sentences, None, max_length=max_length)
    room = max_length - 2
    texts = [""] * len(sentences)
    for tokens, length, sentence, words in zip(
        rows.tokens, rows.lengths, rows.rows, rows.words, strict=True
    ):
        assert 3 <= length <= max_length
        assert tokens[0] == START
        assert tokens[length - 1] == SEPARATOR
        assert (tokens[length:] == PAD).all()
        assert words[1] >= 0
        letters = tokens[1 : length - 1]
        assert (letters >= FIRST_LETTER).all()
        texts[sentence] += "".join(chr(letter - FIRST_LETTER + ord("a")) for letter in letters)
    assert texts == ["".join(w.replace("!", "")[:room] for w in words) for words in sentences]
    # A row ends because the next word of the same sentence would not have fitted.
    for row in range(len(rows.rows) - 1):
        if rows.rows[row] == rows.rows[row + 1]:
            next_word = sentences[rows.rows[row]][rows.words[row + 1, 1]].replace("!", "")
            assert rows.lengths[row] + len(next_word) > max_length
