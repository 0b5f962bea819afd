import json

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tokenizers import load_text_tokenizer, make_text_tokenizer
from transformer.composition import with_fields
from transformer.data.tokenizers.choosing import TokenizerChoice
from transformer.data.tokenizers.text import LibraryTextTokenizer
from transformer.errors import ConfigError, DataError
from transformer.tasks.language_modeling import LanguageModeling

CORPUS = "To be, or not to be:\nthat is the question.\n\n  Ünïcode 天地 😀 it's 1,234 — ok\r\n" * 30
BYTE = make_text_tokenizer("byte", "", 0)
BPE = make_text_tokenizer("bpe", CORPUS, 300)

unicode_texts = st.text(max_size=60)
odd_texts = [
    "",
    "\n",
    "line\r\nline\r\n",
    "e\u0301 is not \u00e9",
    "👩‍👩‍👧‍👦 and 🇩🇪",
    "天地玄黄",
    "\x00\x1c\x85\u2028tab\t",
    "  leading and trailing  ",
    "<unk> [CLS] </s>",
]


@given(text=unicode_texts)
def test_byte_round_trip(text):
    ids = BYTE.encode(text)
    assert BYTE.decode(ids) == text
    assert len(ids) == len(text.encode())


def test_byte_has_a_token_for_each_byte():
    assert BYTE.vocab_size == 256
    assert len(set(BYTE.encode("".join(map(chr, range(128)))).tolist())) == 128


@given(text=unicode_texts)
def test_bpe_round_trip(text):
    assert BPE.decode(BPE.encode(text)) == text


def test_bpe_is_shorter_than_bytes():
    assert BPE.vocab_size == 300
    assert len(BPE.encode(CORPUS)) < len(CORPUS.encode()) / 2


@given(text=unicode_texts)
def test_character_round_trip(text):
    tokenizer = make_text_tokenizer("character", text + "a", 0)
    ids = tokenizer.encode(text)
    assert len(ids) == len(text)
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("kind", ["character", "byte", "bpe"])
@pytest.mark.parametrize("text", odd_texts, ids=ascii)
def test_odd_texts(kind, text):
    tokenizer = make_text_tokenizer(kind, text + "a", 256)
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32
    assert tokenizer.decode(ids) == text


def test_characters_are_in_order():
    tokenizer = make_text_tokenizer("character", "cab\nbac", 0)
    assert tokenizer.vocab_size == 4
    assert tokenizer.encode("\nabc").tolist() == [0, 1, 2, 3]


def test_unknown_characters_are_named():
    tokenizer = make_text_tokenizer("character", "abc", 0)
    with pytest.raises(DataError, match=r"'x' \(U\+0078\), 'é' \(U\+00E9\)") as error:
        tokenizer.encode("aéxb")
    assert "others" not in str(error.value)
    with pytest.raises(DataError, match="and others"):
        tokenizer.encode("123456")


LINES = st.lists(
    st.sampled_from(["\n", "\n\n", " \n", "\n ", "word", " it's", "\r\n", "...", " 12", "\t"]),
    min_size=400,
    max_size=500,
)


@settings(max_examples=15)
@given(parts=LINES)
def test_pieces_encode_like_the_whole(parts):
    text = "".join(parts)
    library = BPE._tokenizer
    long = text * (1 + (1 << 17) // len(text))
    np.testing.assert_array_equal(BPE.encode(long), library.encode(long).ids)


def test_equal_texts_make_equal_tokenizers():
    for kind in ("character", "bpe"):
        first, second = (make_text_tokenizer(kind, CORPUS, 300).identity() for _ in range(2))
        assert first == second


@pytest.mark.parametrize("kind", ["character", "byte", "bpe"])
def test_save_and_load(tmp_path, kind):
    tokenizer = make_text_tokenizer(kind, CORPUS, 300)
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer.identity(), "utf-8")
    for loaded in (load_text_tokenizer(tmp_path), make_text_tokenizer(str(path), "", 0)):
        assert loaded.identity() == tokenizer.identity()
        assert loaded.vocab_size == tokenizer.vocab_size
        np.testing.assert_array_equal(loaded.encode(CORPUS), tokenizer.encode(CORPUS))
        assert loaded.decode(loaded.encode(CORPUS)) == CORPUS


@pytest.mark.parametrize("content", ["", "{", "{}", '{"model": 3}', "text"])
def test_malformed_tokenizer_json(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"not a tokenizer.json"):
        load_text_tokenizer(tmp_path)


def test_missing_tokenizer_json(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        make_text_tokenizer(str(tmp_path / "tokenizer.json"), "", 0)


def test_unknown_kind():
    with pytest.raises(ConfigError, match=r"'word'.*character, byte, bpe"):
        make_text_tokenizer("word", "text", 0)


@pytest.mark.parametrize("size", [0, 255])
def test_bpe_needs_all_bytes(size):
    with pytest.raises(ConfigError, match=f"tokenizer.size is {size}"):
        make_text_tokenizer("bpe", "text", size)


def test_a_truncating_tokenizer_json_loses_nothing(tmp_path):
    content = json.loads(BYTE.identity())
    content["truncation"] = {
        "direction": "Right",
        "max_length": 4,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content))
    loaded = load_text_tokenizer(tmp_path)
    assert loaded.decode(loaded.encode("a longer text")) == ("a longer text")


@pytest.mark.parametrize("tokenizer", [BYTE, BPE], ids=["byte", "bpe"])
@given(text=unicode_texts)
def test_streamed_pieces_make_the_text(tokenizer, text):
    stream = tokenizer.stream()
    assert "".join(stream.push(token) for token in tokenizer.encode(text)) == text


@given(ids=st.lists(st.integers(0, 255), max_size=30))
def test_bytes_that_are_no_text_are_streamed_as_they_are_decoded(ids):
    stream = BYTE.stream()
    streamed = "".join(stream.push(token) for token in ids)
    assert streamed + stream.close() == BYTE.decode(ids)


def test_streaming_holds_back_half_a_character():
    stream = BYTE.stream()
    pieces = [stream.push(token) for token in BYTE.encode("a天b")]
    assert pieces == ["a", "", "", "天", "b"]


def with_holes():
    """Three letters, and an end token far behind them."""
    vocabulary = {"a": 0, "b": 1, "c": 2, "<end>": 9}
    model = tokenizers.models.BPE(vocabulary, [])
    library_tokenizer = tokenizers.Tokenizer(model)
    library_tokenizer.decoder = tokenizers.decoders.Fuse()
    library_tokenizer.add_special_tokens(["<end>"])
    return LibraryTextTokenizer(library_tokenizer)


def test_a_vocabulary_with_holes_has_a_row_for_its_largest_id():
    tokenizer = with_holes()
    assert tokenizer.encode("ab<end>c").tolist() == [0, 1, 9, 2]
    assert tokenizer.vocab_size == 10
    # An id without a token is no text.
    stream = tokenizer.stream()
    assert [stream.push(token) for token in (0, 5, 9)] == ["a", "", "<end>"]
    assert tokenizer.tokens([5, 9]) == ["", "<end>"]


def test_a_run_with_holes_in_its_vocabulary_has_all_rows(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with_holes().save(tmp_path)
    (tmp_path / "text.txt").write_text("abc<end>" * 40)
    task = with_fields(
        LanguageModeling(),
        path=str(tmp_path / "text.txt"),
        tokenizer=TokenizerChoice(str(tmp_path / "tokenizer.json")),
        context=4,
    )
    data = task.load(None)
    assert data.train.array.max() == 9
    assert data.dimensions() == {"vocab_size": 10}
