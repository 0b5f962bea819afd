import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers

from tests.tokenizers import make_encoder_tokenizer
from transformer.data.text.rows import lay_out_texts

# Specials are not where they usually are, so that no number can stand for their names.
VOCABULARY = ["a", "[SEP]", "b", "[PAD]", "##c", "[CLS]", "d", "[MASK]", "[UNK]"]
A, SEP, B, PAD, C, CLS, D, MASK, UNK = range(9)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "vocab.txt"
    path.write_text("\n".join(VOCABULARY) + "\n")
    return make_encoder_tokenizer(str(path), [], vocab_size=1, lowercase=True)


def test_single_texts(tokenizer):
    rows = lay_out_texts(tokenizer, ["a bc", "", "d"], None, 6)
    np.testing.assert_array_equal(
        rows.tokens,
        [[CLS, A, B, C, SEP, PAD], [CLS, SEP, *4 * [PAD]], [CLS, D, SEP, PAD, PAD, PAD]],
    )
    np.testing.assert_array_equal(rows.token_types, np.zeros((3, 6)))
    np.testing.assert_array_equal(rows.lengths, [5, 2, 3])
    assert rows.num_cut == 0
    arrays = rows.arrays()
    assert list(arrays) == ["tokens", "token_types", "lengths"]
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.int32)}


def test_pairs(tokenizer):
    rows = lay_out_texts(tokenizer, ["a b", "", "d"], ["d", "ac", ""], 7)
    np.testing.assert_array_equal(
        rows.tokens,
        [
            [CLS, A, B, SEP, D, SEP, PAD],
            [CLS, SEP, A, C, SEP, PAD, PAD],
            [CLS, D, SEP, SEP, PAD, PAD, PAD],
        ],
    )
    np.testing.assert_array_equal(
        rows.token_types,
        [[0, 0, 0, 0, 1, 1, 0], [0, 0, 1, 1, 1, 0, 0], [0, 0, 0, 1, 0, 0, 0]],
    )
    np.testing.assert_array_equal(rows.lengths, [6, 5, 4])
    assert rows.num_cut == 0


def test_long_texts_lose_their_ends(tokenizer):
    rows = lay_out_texts(tokenizer, ["a b d", "a b", "a b d a"], None, 4)
    np.testing.assert_array_equal(rows.tokens, 3 * [[CLS, A, B, SEP]])
    np.testing.assert_array_equal(rows.lengths, [4, 4, 4])
    assert rows.num_cut == 2


def test_the_longer_text_of_a_pair_gives_way(tokenizer):
    texts, seconds = ["a a a a", "b", "a a a"], ["b", "d d d d", "d d d"]
    rows = lay_out_texts(tokenizer, texts, seconds, 6)
    np.testing.assert_array_equal(
        rows.tokens,
        [[CLS, A, A, SEP, B, SEP], [CLS, B, SEP, D, D, SEP], [CLS, A, SEP, D, D, SEP]],
    )
    assert rows.num_cut == 3


def cut_by_the_library(first, second, room):
    """As the library `tokenizers` cuts the longer of two texts."""
    library = tokenizers.Tokenizer(models.WordLevel({t: i for i, t in enumerate(VOCABULARY)}))
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    library.enable_truncation(room, strategy="longest_first")
    found = library.encode(" ".join(first), " ".join(second))
    cut = [place for place, of in enumerate(found.sequence_ids) if of == 0]
    return found.tokens[: len(cut)], found.tokens[len(cut) :]


SIDES = st.lists(st.sampled_from(["a", "b", "d"]), max_size=14)


@given(SIDES, SIDES, st.integers(3, 24))
def test_pairs_are_cut_as_by_the_library(tokenizer, first, second, max_length):
    rows = lay_out_texts(tokenizer, [" ".join(first)], [" ".join(second)], max_length)
    kept = cut_by_the_library(first, second, max_length - 3)
    ids = [[VOCABULARY.index(token) for token in side] for side in kept]
    expected = [CLS, *ids[0], SEP, *ids[1], SEP]
    (length,) = rows.lengths
    assert rows.tokens[0, :length].tolist() == expected
    assert (rows.tokens[0, length:] == PAD).all()
    types = [0] * (len(ids[0]) + 2) + [1] * (len(ids[1]) + 1)
    assert rows.token_types[0].tolist() == types + [0] * (max_length - length)
    assert rows.num_cut == (kept != (first, second))


def test_special_tokens_are_text_unless_told_otherwise(tokenizer):
    plain = lay_out_texts(tokenizer, ["a [MASK]"], ["[SEP]"], 12)
    assert MASK not in plain.tokens
    assert (plain.tokens == SEP).sum() == 2
    special = lay_out_texts(tokenizer, ["a [MASK]"], ["d"], 12, special=True)
    assert special.tokens[0, :6].tolist() == [CLS, A, MASK, SEP, D, SEP]


def test_no_texts(tokenizer):
    rows = lay_out_texts(tokenizer, [], [], 5)
    assert rows.tokens.shape == rows.token_types.shape == (0, 5)
    assert rows.lengths.shape == (0,)
    assert rows.num_cut == 0


def test_unknown_tokens_are_counted(tokenizer):
    """Of all tokens, the special ones included."""
    rows = lay_out_texts(tokenizer, ["a x", "d"], None, 8)
    assert rows.tokens[0].tolist()[:4] == [CLS, A, UNK, SEP]
    assert rows.unknown == pytest.approx(1 / 7)
    assert lay_out_texts(tokenizer, [], None, 8).unknown == 0.0
