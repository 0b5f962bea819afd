import json

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers

from tests.tokenizers import load_encoder_tokenizer, make_encoder_tokenizer
from transformer.data.labels.squad import Answer, Question
from transformer.data.labels.windows import make_windows
from transformer.data.source import Visit
from transformer.data.text.documents import SentencePairs, tokenize_documents
from transformer.data.text.masking import Masking
from transformer.data.text.rows import lay_out_texts
from transformer.data.tokenizers.byte_pieces import (
    SPECIAL_TOKENS,
    BytePieceTokenizer,
    train_byte_pieces,
)
from transformer.data.tokenizers.kinds.encoder import parse_encoder_tokenizer
from transformer.errors import ConfigError, DataError

TEXTS = [
    "The house is green, and the house was green in 1984.",
    "A dog runs  across the street; the dogs ran <mask> 中文 très vite!",
    "Ein Hund la\u0308uft über die Straße.\n\n\tDie Hunde laufen. 👍👍",
] * 3
CHARACTERS = [
    *"aehT .,",
    "  ",
    "\n",
    "\t",
    "é",
    "e\u0301",
    "中",
    "👍",
    "👩\u200d💻",
    "\u3000",
    "<s>",
]


@pytest.fixture(scope="module")
def tokenizer():
    return make_encoder_tokenizer("bpe", TEXTS, vocab_size=330, lowercase=True)


def surface(tokenizer, text, **options):
    (pieces,) = tokenizer.pieces([text], **options)
    return tokenizer.tokens(pieces.ids)


def test_special_tokens_have_the_numbers_of_roberta(tokenizer):
    assert tokenizer.tokens(range(5)) == ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    found = [getattr(tokenizer, name) for name in SPECIAL_TOKENS._fields]
    assert found == [1, 3, 0, 2, 4]
    assert np.flatnonzero(tokenizer.special).tolist() == [0, 1, 2, 3, 4]
    assert tokenizer.vocab_size <= 330
    assert not tokenizer.lowercase


def test_pieces_and_places(tokenizer):
    text = " the  house\n\tE\u0301 "
    (pieces,) = tokenizer.pieces([text])
    assert tokenizer.tokens(pieces.ids) == [
        *(" the", " ", " house", "\n", "\t", "E", "\ufffd", "\ufffd", " ")
    ]
    places = list(zip(pieces.starts.tolist(), pieces.ends.tolist(), strict=True))
    # White space stands for itself only where nothing else does.
    assert places == [
        *((1, 4), (4, 5), (6, 11), (11, 12), (12, 13), (13, 14), (14, 15), (14, 15), (15, 16))
    ]
    assert tokenizer.continues[pieces.ids].tolist() == [*[False] * 5, *[True] * 3, False]
    assert tokenizer.decode([tokenizer.start, *pieces.ids, tokenizer.separator]) == text


def test_special_tokens_are_text_unless_told_otherwise(tokenizer):
    text = " the <mask></s>"
    assert not set(SPECIAL_TOKENS) & set(surface(tokenizer, text))
    # The mask takes the space in front of it along.
    assert surface(tokenizer, text, special=True) == [" the", "<mask>", "</s>"]


def test_given_words_have_a_space_in_front(tokenizer):
    (pieces,) = tokenizer.encode_words([["house", "", "Straße", "<mask>"]])
    assert tokenizer.tokens(pieces.ids[:1]) == [" house"]
    assert sorted(set(pieces.words.tolist())) == [0, 2, 3]
    assert (pieces.starts[0], pieces.ends[0]) == (0, 5)
    assert tokenizer.decode(pieces.ids) == " house Straße <mask>"
    assert not tokenizer.special[pieces.ids].any()


def test_sentences_of_a_text_follow_spaces(tokenizer):
    ids = tokenizer.encode_sentences(["the house", "the dog", ""])
    assert [tokenizer.decode(sentence) for sentence in ids] == ["the house", " the dog", ""]
    assert tokenizer.encode_sentences([]) == []


@given(
    st.one_of(
        st.lists(st.sampled_from(CHARACTERS), max_size=30).map("".join),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    )
)
def test_each_piece_has_its_characters(tokenizer, text):
    (pieces,) = tokenizer.pieces([text])
    assert tokenizer.decode(pieces.ids) == text
    assert not tokenizer.special[pieces.ids].any()
    assert (pieces.starts < pieces.ends).all()
    assert (np.diff(pieces.starts) >= 0).all()
    assert (np.diff(pieces.ends) >= 0).all()
    covered = np.zeros(len(text), bool)
    for token, start, end in zip(
        tokenizer.tokens(pieces.ids), pieces.starts, pieces.ends, strict=True
    ):
        covered[start:end] = True
        if "\ufffd" in token:
            # What it has of whole characters is there, and no more than one at either end.
            assert token.strip("\ufffd").strip() in text[start:end]
            assert end - start <= len(token)
        else:
            assert text[start:end] == (token.strip() or token)
    assert all(character.isspace() for character, at in zip(text, covered, strict=True) if not at)


def test_halves_of_characters(tokenizer):
    assert tokenizer.decode(tokenizer.pieces(["a\ud83d b"])[0].ids) == "a\ufffd b"


def test_training_is_deterministic(tokenizer):
    again = train_byte_pieces(iter(TEXTS), 330)
    assert again.identity() == tokenizer.identity()


def test_save_and_load(tmp_path, tokenizer):
    assert load_encoder_tokenizer(tmp_path) is None
    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    for loaded in (
        load_encoder_tokenizer(tmp_path),
        make_encoder_tokenizer(str(path), [], vocab_size=0, lowercase=True),
        parse_encoder_tokenizer(path.read_text("utf-8"), path),
    ):
        assert loaded.identity() == tokenizer.identity()
        text = "The <mask> é👍"
        assert surface(loaded, text, special=True) == surface(tokenizer, text, special=True)


def test_rows(tokenizer):
    rows = lay_out_texts(tokenizer, ["the house ran", ""], ["a dog", "a"], 10)
    texts = tokenizer.pieces(["the house ran", "a dog"])
    first, second = (pieces.ids.tolist() for pieces in texts)
    assert (len(first), len(second)) == (5, 2)
    assert rows.tokens.tolist() == [
        [0, *first[:4], 2, 2, *second, 2],
        [0, 2, 2, second[0], 2, *[1] * 5],
    ]
    assert rows.lengths.tolist() == [10, 5]
    assert not rows.token_types.any()
    assert rows.num_cut == 1
    assert rows.unknown == 0.0


BLANKS = ["{}\r", "{}  ", " {}", "\t {}\u3000", "\xa0{}\x0c"]


@pytest.mark.parametrize("blanks", BLANKS)
def test_white_space_around_a_text_is_no_part_of_it(tokenizer, blanks):
    texts = ["the house ran", "a dog"]
    spaced = [blanks.format(text) for text in texts]
    for special in (False, True):
        for seconds in (None, texts[::-1]):
            others = None if seconds is None else spaced[::-1]
            rows = lay_out_texts(tokenizer, texts, seconds, 10, special=special)
            found = lay_out_texts(tokenizer, spaced, others, 10, special=special)
            np.testing.assert_array_equal(found.tokens, rows.tokens)


@pytest.mark.parametrize("blanks", BLANKS)
def test_nor_of_a_question_and_its_context(tokenizer, blanks):
    """Places are those of the context as it was given."""
    sizes = {"max_length": 12, "stride": 2, "max_question_length": 3}
    context, start = "the house ran", 4
    moved = blanks.index("{")
    plain, spaced = (
        make_windows(tokenizer, [Question("1", question, text, (answer,))], **sizes)
        for question, text, answer in (
            ("a dog", context, Answer("house", start)),
            (blanks.format("a dog"), blanks.format(context), Answer("house", start + moved)),
        )
    )
    for name in ("tokens", "starts", "ends", "lengths"):
        np.testing.assert_array_equal(getattr(spaced, name), getattr(plain, name))
    places = spaced.first_chars >= 0
    assert (spaced.first_chars - plain.first_chars == moved * places).all()
    assert (spaced.last_chars - plain.last_chars == moved * places).all()


def test_pairs_of_sentences(tokenizer):
    documents = [["the house", "the dog", "the street", "the house"]] * 4
    data = tokenize_documents(tokenizer, documents)
    pairs = SentencePairs(data, tokenizer, 16, Masking(whole_words=True), next_sentence=True)
    batch = pairs.batch([Visit(example) for example in range(4)])
    for tokens, length in zip(batch["tokens"], batch["lengths"], strict=True):
        places = np.flatnonzero(tokens == tokenizer.separator)
        assert tokens[0] == tokenizer.start
        assert len(places) == 3
        assert places[1] == places[0] + 1
        assert places[2] == length - 1 < 16
        assert (tokens[length:] == tokenizer.pad).all()
    assert not batch["token_types"].any()
    with pytest.raises(ConfigError, match="has 6"):
        SentencePairs(data, tokenizer, 5, Masking(), next_sentence=True)


def test_a_vocabulary_needs_room_for_all_bytes():
    with pytest.raises(ConfigError, match="261"):
        train_byte_pieces(TEXTS, 260)
    assert train_byte_pieces([], 261).vocab_size == 261


def test_what_is_no_kind():
    with pytest.raises(ConfigError, match="'sentencepiece': choose from wordpiece, bpe, "):
        make_encoder_tokenizer("sentencepiece", [], vocab_size=300, lowercase=True)


def json_of(tokenizer, change):
    content = json.loads(tokenizer.identity())
    change(content)
    return json.dumps(content)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: content.update(pre_tokenizer=None), "NoneType.*ByteLevel"),
        (
            lambda content: (
                content["model"]["vocab"].pop("<mask>"),
                content["added_tokens"].pop(),
            ),
            "lacks <mask>, which RoBERTa needs",
        ),
        (lambda content: content.update(model={"type": "Unigram", "vocab": []}), "tokenizer"),
    ],
)
def test_other_tokenizers_are_refused(tmp_path, tokenizer, change, said):
    (tmp_path / "tokenizer.json").write_text(json_of(tokenizer, change))
    with pytest.raises(DataError, match=said) as error:
        load_encoder_tokenizer(tmp_path)
    assert str(error.value).startswith(str(tmp_path))


def test_a_model_of_another_kind():
    library = tokenizers.Tokenizer(models.WordLevel({"<s>": 0}))
    with pytest.raises(DataError, match="WordLevel: RoBERTa needs one of BPE"):
        BytePieceTokenizer(library)


def test_a_tokenizer_that_always_puts_a_space_in_front(tokenizer):
    library = tokenizers.Tokenizer.from_str(tokenizer.identity())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    spaced = BytePieceTokenizer(library)
    (pieces,) = spaced.pieces(["house é"])
    assert spaced.tokens(pieces.ids[:1]) == [" house"]
    assert (pieces.starts[0], pieces.ends[0]) == (0, 5)
    assert (pieces.starts < pieces.ends).all()
