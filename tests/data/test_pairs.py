import gzip

import numpy as np
import pytest

from tests.tokenizers import make_sentence_tokenizer
from transformer.data.pairs.files import (
    Pairs,
    Sentences,
    TokenPairs,
    columns,
    made_up_pairs,
    read_lines,
    read_pairs,
    tokenize_pairs,
    without_empty,
)
from transformer.errors import ConfigError, DataError

SOURCE, TARGET = ["a cat", "", "der Hund"], ["eine Katze", "nichts", "the dog"]


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def encodings(lines):
    """The same lines, as files have them."""
    text = "\n".join(lines)
    return {
        "plain": text + "\n",
        "without the last line end": text,
        "CRLF": text.replace("\n", "\r\n") + "\r\n",
        "white space": text.replace("\n", " \t\n  "),
        "gzip": gzip.compress(f"{text}\n".encode()),
        "gzip in two parts": gzip.compress(text[:4].encode()) + gzip.compress(text[4:].encode()),
    }


@pytest.mark.parametrize("kind", encodings(SOURCE))
def test_pairs_are_read_line_by_line(write, kind):
    paths = write("source", encodings(SOURCE)[kind]), write("target", encodings(TARGET)[kind])
    assert read_pairs(list(paths), "field") == Pairs(SOURCE, TARGET)
    assert read_pairs(" , ".join(paths), "field") == Pairs(SOURCE, TARGET)


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1d", "\r"])
def test_only_a_line_feed_ends_a_line(write, separator):
    path = write("text", f"a{separator}b\nc\n")
    assert read_lines(path) == [f"a{separator}b", "c"]


def test_empty_lines_at_the_end_are_lines(write):
    assert read_lines(write("text", "a\n\n\n")) == ["a", "", ""]


def test_different_numbers_of_lines(write):
    paths = [write("one", "a\n" * 1234), write("two", "a\n" * 1233)]
    with pytest.raises(DataError) as error:
        read_pairs(paths, "field")
    for part in (*paths, "1,234", "1,233"):
        assert part in str(error.value)


@pytest.mark.parametrize("paths", ["", "one", "one,", ",", "one,two,three", ["one"], []], ids=str)
def test_there_must_be_two_paths(paths):
    with pytest.raises(ConfigError, match=r"config.task.train.*SOURCE,TARGET"):
        read_pairs(paths, "config.task.train")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\n \n", "empty"),
        (gzip.compress(b"", mtime=0), "empty"),
        (gzip.compress(b"text\n" * 50, mtime=0)[:-9], "damaged gzip"),
        (gzip.compress(b"text\n" * 50, mtime=0)[:14] + b"\xff" * 30, "damaged gzip"),
        (b"abc\xff\n", "not UTF-8 text: byte 3 is 0xff"),
        (gzip.compress("für".encode("latin1"), mtime=0), "not UTF-8 text: byte 1 is 0xfc"),
    ],
)
@pytest.mark.parametrize("place", [0, 1])
def test_unusable_files_are_named(write, content, message, place):
    paths = [write("good", "text\n"), write("good as well", "text\n")]
    paths[place] = write("bad", content)
    with pytest.raises(DataError, match=message) as error:
        read_pairs(paths, "field")
    assert str(error.value).startswith(paths[place])


def test_missing_file(write):
    with pytest.raises(DataError, match="nowhere does not exist"):
        read_pairs([write("good", "text\n"), "nowhere"], "field")


def test_sentences():
    ids = [np.array([3, 1, 2]), np.array([], np.int32), np.array([5])]
    sentences = Sentences(ids, end=9)
    assert [sentence.tolist() for sentence in sentences] == [[3, 1, 2, 9], [9], [5, 9]]
    assert len(sentences) == 3
    assert sentences.lengths.tolist() == [4, 1, 2]
    assert sentences.tokens.dtype == np.int32
    other = Sentences([np.arange(2)] * 3, end=9)
    assert TokenPairs(sentences, other).lengths.tolist() == [4, 3, 3]


def test_pairs_with_an_empty_side_are_left_out():
    notes = []
    pairs = Pairs(["a", "", "c", "d", ""], ["A", "B", "", "D", ""])
    assert without_empty(pairs, notes) == columns([("a", "A"), ("d", "D")])
    assert notes == ["3 training pairs with an empty side are left out."]


def test_all_pairs_with_an_empty_side():
    with pytest.raises(DataError, match="nothing to learn from"):
        without_empty(Pairs(["a", ""], ["", "b"]), [])


# With room for four letters the first two are short enough.
LETTERS = Pairs(["abcd", "a", "abcde", "b"], ["d", "dcba", "e", "abcdea"])


@pytest.fixture(scope="module")
def letters():
    return make_sentence_tokenizer("character", ["abcde"], 0)


def tokenized(letters, pairs=LETTERS, **options):
    notes = []
    options = {"max_length": 5, "too_long": "truncate", "training": True, **options}
    tokens = tokenize_pairs(letters, pairs, notes=notes, **options)
    texts = Pairs(*([letters.decode(ids[:-1]) for ids in side] for side in tokens))
    assert all(ids[-1] == letters.end for side in tokens for ids in side)
    return texts, notes


def test_long_pairs_are_left_out_of_training(letters):
    texts, notes = tokenized(letters)
    assert texts == Pairs(["abcd", "a"], ["d", "dcba"])
    assert notes == ["2 training pairs of more than 4 tokens are left out."]


def test_long_pairs_are_cut_in_validation(letters):
    texts, notes = tokenized(letters, training=False)
    assert texts == Pairs(["abcd", "a", "abcd", "b"], ["d", "dcba", "e", "abcd"])
    assert notes == [
        "2 validation pairs are cut to 4 tokens for the loss.",
        "1 validation sources are cut so for outputs, too: config.task.max_length (5) counts their "
        "ends.",
    ]


def test_nothing_is_said_of_short_pairs(letters):
    for too_long in ("truncate", "refuse"):
        assert tokenized(letters, max_length=7, too_long=too_long) == (LETTERS, [])


@pytest.mark.parametrize("training", [False, True])
def test_long_pairs_are_refused(letters, training):
    with pytest.raises(DataError) as error:
        tokenized(letters, training=training, too_long="refuse")
    part = "training" if training else "validation"
    for said in (f"{part} pair 3 has 5 tokens", "the 4 that", "config.task.max_length"):
        assert said in str(error.value)


def test_all_training_pairs_are_too_long(letters):
    with pytest.raises(DataError, match="max_length"):
        tokenized(letters, Pairs(["abcde"], ["a"]))


@pytest.mark.parametrize("kind", ["phrases", "reverse"])
def test_made_up_pairs_share_no_source(kind):
    if kind == "phrases":
        pytest.importorskip("babel", reason="phrases are made of its data")
    made = made_up_pairs(
        kind, count=300, languages=("en", "de"), longest=6, validation_fraction=0.1
    )
    train, validation, longer = (set(pairs.source) for pairs in made)
    assert train
    assert validation
    assert not train & validation
    assert not (train | validation) & longer
    assert bool(longer) == (kind == "reverse")
    for pairs in made:
        assert len(pairs.source) == len(pairs.target)
