"""Residues as tokens."""

import numpy as np
import pytest
import tokenizers
from tokenizers import models

from transformer.data.tokenizers.choosing import TokenizerChoice, load_tokenizer
from transformer.data.tokenizers.pieces import EncoderTokenizer
from transformer.data.tokenizers.residues import (
    ALPHABET,
    ResidueTokenizer,
    published_vocabulary,
    residue_tokenizer,
)
from transformer.errors import DataError


@pytest.fixture(scope="module")
def tokenizer():
    return TokenizerChoice("residues").make(EncoderTokenizer, [])


def test_ids_are_the_published_ones(tokenizer):
    ids = tokenizer.encode("LAGW.-X")
    np.testing.assert_array_equal(ids, [4, 5, 6, 22, 29, 30, 24])
    assert (tokenizer.start, tokenizer.pad, tokenizer.separator, tokenizer.mask) == (0, 1, 2, 32)
    assert tokenizer.vocab_size == len(ALPHABET) == 33
    assert tokenizer.decode([0, 4, 5, 2]) == "LA"


def test_the_table_of_letters_is_the_library(tokenizer):
    letters = [token for token in ALPHABET if len(token) == 1]
    source = np.random.default_rng(0)
    texts = ["".join(source.choice(letters, size)) for size in (0, 1, 50)] + ["M K\tT"]
    fast, slow = tokenizer.encode_all(texts), [p.ids for p in tokenizer.pieces(texts)]
    for one, other in zip(fast, slow, strict=True):
        np.testing.assert_array_equal(one, other)
    # A letter that begins a longer token is none of the table's.
    vocabulary = {**published_vocabulary(), "LA": 33}
    assert residue_tokenizer(vocabulary).encode("LAG").tolist() == [33, 6]


def test_special_tokens_are_text_unless_asked_for(tokenizer):
    assert tokenizer.pieces(["M<mask>K"], special=True)[0].ids.tolist() == [20, 32, 15]
    assert tokenizer.pieces(["M<unk>"], special=True)[0].ids.tolist() == [20, 3]
    with pytest.raises(DataError, match="'<mask>' behind 1 characters, which stands for no"):
        tokenizer.pieces(["M<mask>K"], special=False)


@pytest.mark.parametrize("text", ["MkT", "M7", "MJ", "Mé"])
def test_no_residues_are_refused(tokenizer, text):
    with pytest.raises(DataError, match=f"'{text}' has '{text[1]}' behind 1 characters"):
        tokenizer.encode(text)
    with pytest.raises(DataError, match=f"has '{text[1]}'"):
        tokenizer.encode_words([list(text)])


def test_words_are_residues(tokenizer):
    assert tokenizer.split_words("MK T") == ["M", "K", "T"]
    assert tokenizer.encode_words([["M", "K"]])[0].words.tolist() == [0, 1]


def test_save_and_load(tmp_path, tokenizer):
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(EncoderTokenizer, tmp_path)
    assert isinstance(loaded, ResidueTokenizer)
    assert loaded.identity() == tokenizer.identity()
    assert loaded.encode("MKT").tolist() == tokenizer.encode("MKT").tolist()


def test_other_tokenizers_are_refused():
    with pytest.raises(DataError, match="BPE: proteins need one of WordLevel"):
        ResidueTokenizer(tokenizers.Tokenizer(models.BPE()))
    with pytest.raises(DataError, match="lacks <cls>"):
        residue_tokenizer({"<unk>": 0, "<pad>": 1, "<eos>": 2, "<mask>": 3})
    library = tokenizers.Tokenizer(models.WordLevel(published_vocabulary(), unk_token="X"))
    with pytest.raises(DataError, match="unknown token is 'X'"):
        ResidueTokenizer(library)
