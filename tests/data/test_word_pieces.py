import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tokenizers import make_encoder_tokenizer
from transformer.data.tokenizers.word_pieces import SPECIAL_TOKENS

SIGMA = "\N{GREEK SMALL LETTER SIGMA}"

# Capitals without lowercase, parts of words, and letters that need their accents or lose them.
VOCABULARY = [
    "[PAD]",
    "[unused0]",
    *SPECIAL_TOKENS[1:],
    *["the", "un", "##aff", "##able", "Un", "mask", "MASK"],
    *["##s", "über", "##ing", "wo", "中", "👍"],
    *f"abcdeéößøïİAÉδλ{SIGMA}ς'.,!#[]-“”…の한ᄒя",
    *("##" + letter for letter in f"abcdeéßøAÉδλ{SIGMA}ςᅡᆫя\u0301"),
]


def of_file(tmp_path_factory, lowercase):
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("\n".join(VOCABULARY) + "\n", "utf-8")
    return make_encoder_tokenizer(str(path), [], vocab_size=0, lowercase=lowercase)


@pytest.fixture(scope="module")
def uncased(tmp_path_factory):
    return of_file(tmp_path_factory, lowercase=True)


@pytest.fixture(scope="module")
def cased(tmp_path_factory):
    return of_file(tmp_path_factory, lowercase=False)


@pytest.fixture(scope="module", params=["uncased", "cased"])
def tokenizer(request):
    return request.getfixturevalue(request.param)


def surface(tokenizer, text, **options):
    (pieces,) = tokenizer.pieces([text], **options)
    return tokenizer.tokens(pieces.ids)


# Blocks of Unicode that have not changed since the library's tables, without Σ.
BLOCKS = [
    *[(0x0, 0x24F), (0x300, 0x34E), (0x391, 0x3A1), (0x3A4, 0x3CE), (0x400, 0x481)],
    *[(0x5D0, 0x5EA), (0x621, 0x652), (0x905, 0x939), (0x1E00, 0x1EFF), (0x2010, 0x2027)],
    *[(0x2028, 0x2064), (0x3000, 0x3003), (0x3041, 0x3096), (0x4E00, 0x4E80), (0xAC00, 0xAC80)],
    *[(0xD55C, 0xD55C), (0xE000, 0xE010), (0xFE00, 0xFE0F), (0xFFFD, 0xFFFD), (0x1F440, 0x1F64F)],
]
characters = st.one_of(
    [st.integers(low, high).map(chr) for low, high in BLOCKS] + [st.sampled_from(" \n\t")]
)
fragments = st.sampled_from([*SPECIAL_TOKENS, *VOCABULARY, "a" * 99, "unaffable", "e\u0301", " "])
texts = st.lists(characters | fragments, max_size=30).map("".join)
any_text = st.text(max_size=60)


def is_punctuation(character):
    code = ord(character)
    ascii_sign = 33 <= code <= 126 and not character.isalnum()
    return ascii_sign or unicodedata.category(character).startswith("P")


def basic_words(text, lowercase):
    """BERT's words: cleaned, split at white space, Chinese characters and punctuation."""
    cleaned = ""
    for character in text:
        if character in "\t\n\r":
            cleaned += " "
        elif unicodedata.category(character)[0] == "C" or character == "\ufffd":
            continue
        elif "\u4e00" <= character <= "\u9fff":
            cleaned += f" {character} "
        else:
            cleaned += character
    for word in cleaned.split():
        if lowercase:
            decomposed = unicodedata.normalize("NFD", word.lower())
            letters = [c for c in decomposed if unicodedata.category(c) != "Mn"]
        else:
            letters = list(word)
        yield from "".join(f" {c} " if is_punctuation(c) else c for c in letters).split()


def reference(text, lowercase):
    """The longest pieces from left to right; a word that they do not cover is unknown."""
    tokens = []
    for word in basic_words(text, lowercase):
        found, start = [], 0
        while start < len(word) <= 100:
            heads = [("##" if start else "") + word[start:e] for e in range(len(word), start, -1)]
            piece = next((head for head in heads if head in VOCABULARY), None)
            if piece is None:
                break
            found.append(piece)
            start += len(piece) - 2 * bool(start)
        tokens += found if start == len(word) else ["[UNK]"]
    return tokens


@given(text=texts)
def test_pieces_are_those_of_bert(uncased, cased, text):
    assert surface(uncased, text) == reference(text, True)
    assert surface(cased, text) == reference(text, False)


def test_pieces_are_those_of_transformers(tmp_path):
    legacy = pytest.importorskip(
        "transformers.models.bert.tokenization_bert_legacy",
        reason="it is BERT's published tokenizer in Python",
    )

    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(VOCABULARY) + "\n", "utf-8")
    examples = [
        "Unaffable, the MASKs! über-UNAFFABLE",
        "a [MASK] b[SEP]c [mask] #able",
        "中a中文 の 한 é É e\u0301\u0327 ß ẞ İ ø",
        "\x00a\u200bb\u00ad \ufffd\u3000c\u2028d\t\n\r “a…” 👍 👍🏽",
        f"{'a' * 100} {'a' * 101} \u0301 [UNK][PAD]",
        f"δλ{SIGMA} ΔΛς яЯ abcdeé",
    ]
    for lowercase in (True, False):
        ours = make_encoder_tokenizer(str(path), [], vocab_size=0, lowercase=lowercase)
        theirs = legacy.BertTokenizerLegacy(str(path), do_lower_case=lowercase)
        # Theirs composes letters and accents first, which BERT's own code does not.
        for text in (unicodedata.normalize("NFC", example) for example in examples):
            assert surface(ours, text, special=True) == theirs.tokenize(text)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("unaffable Unaffable", ["un", "##aff", "##able"] * 2),
        ("“a…b”", ["“", "a", "…", "b", "”"]),
        ("a中b", ["a", "中", "b"]),
        ("e\u0301É", ["e", "##e"]),
        ("a\x00\u200b\ufffdb", ["a", "##b"]),
        ("a" * 100 + "b " + "a" * 100, ["[UNK]", "a", *["##a"] * 99]),
        ("ax the", ["[UNK]", "the"]),
        # Known to differ from the published code, which has `##ς`.
        ("ΔΛΣ", ["δ", "##λ", f"##{SIGMA}"]),
    ],
)
def test_uncased_pieces(uncased, text, tokens):
    assert surface(uncased, text) == tokens


def test_cased_pieces(cased):
    assert surface(cased, "Unaffable unaffable ÉÉ") == [
        *["Un", "##aff", "##able", "un", "##aff", "##able", "É", "##É"]
    ]


def plain(tokenizer, text):
    """A text without what BERT drops or does not tell apart."""
    return "".join(basic_words(text, tokenizer.lowercase))


@given(text=any_text | texts)
def test_places_are_in_the_given_text(uncased, cased, text):
    for tokenizer in (uncased, cased):
        (pieces,) = tokenizer.pieces([text])
        assert [field.dtype for field in pieces] == [np.int32] * 4
        assert len({field.shape for field in pieces}) == 1
        assert np.all((pieces.starts >= 0) & (pieces.starts < pieces.ends))
        assert np.all(pieces.ends <= len(text))
        assert np.all(np.diff(pieces.starts) >= 0)
        assert np.all(np.diff(pieces.ends) >= 0)
        assert np.unique(pieces.words).tolist() == list(range(len(set(pieces.words))))
        assert np.all(np.diff(pieces.words) >= 0)
        assert np.all(np.diff(pieces.words)[~tokenizer.continues[pieces.ids[1:]]] == 1)


@given(text=texts)
def test_each_place_holds_its_piece(uncased, cased, text):
    for tokenizer in (uncased, cased):
        (pieces,) = tokenizer.pieces([text])
        for token, start, end in zip(
            tokenizer.tokens(pieces.ids), pieces.starts, pieces.ends, strict=True
        ):
            if token != "[UNK]":
                letters = token[2:] if token.startswith("##") else token
                held = plain(tokenizer, text[start:end])
                # A syllable of Hangul decomposes into letters that are pieces.
                assert letters == held or (end - start == 1 and letters in held)


def test_places(uncased):
    text = "\x00 E\u0301É  über\n[MASK]中 👍x 한"
    (pieces,) = uncased.pieces([text])
    spans = [text[s:e] for s, e in zip(pieces.starts, pieces.ends, strict=True)]
    # `uber` is not in the vocabulary, nor is 👍x.
    assert spans == ["E", "É", "über", "[", "MASK", "]", "中", "👍x", "한", "한", "한"]
    assert pieces.words.tolist() == [0, 0, 1, 2, 3, 4, 5, 6, 7, 7, 7]
    assert uncased.tokens(pieces.ids)[2:5] == ["[UNK]", "[", "mask"]


def test_written_special_tokens(tokenizer):
    (text,) = tokenizer.pieces(["a[MASK][PAD] [CLS]"])
    assert not tokenizer.special[text.ids[text.ids != tokenizer.unknown]].any()
    (special,) = tokenizer.pieces(["a[MASK][PAD] [CLS]"], special=True)
    assert tokenizer.tokens(special.ids) == ["a", "[MASK]", "[PAD]", "[CLS]"]
    assert special.starts.tolist() == [0, 1, 7, 13]
    assert special.ends.tolist() == [1, 7, 12, 18]
    assert special.words.tolist() == [0, 1, 2, 3]


def test_words_that_are_given(tokenizer):
    words = ["unaffable", "", "\x00\u200b", "a'b", "[MASK]", "中中", "a the"]
    pieces, empty, other = tokenizer.encode_words([words, [], ["a"]])
    mask = "mask" if tokenizer.lowercase else "MASK"
    assert tokenizer.tokens(pieces.ids) == [
        *["un", "##aff", "##able", "a", "'", "b", "[", mask, "]", "中", "中", "a", "the"]
    ]
    assert pieces.words.tolist() == [0, 0, 0, 3, 3, 3, 4, 4, 4, 5, 5, 6, 6]
    assert pieces.starts.tolist() == [0, 2, 5, 0, 1, 2, 0, 1, 5, 0, 1, 0, 2]
    assert pieces.ends.tolist() == [2, 5, 9, 1, 2, 3, 1, 5, 6, 1, 2, 1, 5]
    assert [field.shape for field in empty] == [(0,)] * 4
    assert other.words.tolist() == [0]
    assert tokenizer.encode_words([]) == []


@given(sentence=st.lists(texts, max_size=5))
def test_given_words_are_encoded_like_texts(uncased, sentence):
    (pieces,) = uncased.encode_words([sentence])
    for index, word in enumerate(uncased.pieces(sentence)):
        for field in ("ids", "starts", "ends"):
            of_word = getattr(pieces, field)[pieces.words == index]
            np.testing.assert_array_equal(of_word, getattr(word, field))


def test_more_texts_than_the_library_gets_at_a_time(uncased):
    many = [f"{'a ' * (i % 7)}the" for i in range(1100)]
    for cut, given_texts in (
        (uncased.pieces, many),
        (uncased.encode_words, [text.split() for text in many]),
    ):
        lengths = [len(pieces.ids) for pieces in cut(given_texts)]
        assert lengths == [i % 7 + 1 for i in range(1100)]


def test_halves_of_characters_are_dropped(uncased):
    for text in ("a\ud800b", "a\udfffb \udc00"):
        (pieces,) = uncased.pieces([text])
        assert uncased.tokens(pieces.ids) == ["a", "##b"]
        assert pieces.ends.tolist() == [1, 3]
        assert len(uncased.encode_words([[text]])[0].ids) == 2


def test_what_ids_are(tokenizer):
    assert tokenizer.vocab_size == len(VOCABULARY) == len(tokenizer.special)
    ids = [tokenizer.pad, tokenizer.unknown, tokenizer.start, tokenizer.separator, tokenizer.mask]
    assert ids == [0, 2, 3, 4, 5]
    assert np.flatnonzero(tokenizer.special).tolist() == ids
    for index, token in enumerate(VOCABULARY):
        assert tokenizer.continues[index] == token.startswith("##")
    assert tokenizer.special.dtype == tokenizer.continues.dtype == bool


def test_decode(tokenizer, uncased, cased):
    (pieces,) = tokenizer.pieces(["the unaffable , a!"])
    ids = [tokenizer.start, *pieces.ids, tokenizer.mask, tokenizer.separator, tokenizer.pad]
    assert tokenizer.decode(ids) == tokenizer.decode(np.array(ids)) == "the unaffable, a!"
    assert tokenizer.decode([]) == ""
    assert tokenizer.tokens([5, 999]) == ["[MASK]", ""]
    assert uncased.lowercase
    assert not cased.lowercase
