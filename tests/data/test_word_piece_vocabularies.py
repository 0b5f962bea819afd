import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from tests.tokenizers import load_encoder_tokenizer, make_encoder_tokenizer
from transformer.data.tokenizers.word_pieces import SPECIAL_TOKENS, WordPieceTokenizer
from transformer.errors import ConfigError, DataError

TEXTS = [
    "The house is green, and the house was green in 1984.",
    "A dog runs across the street; the dogs ran [MASK] 中文 très vite!",
    "Ein Hund läuft über die Straße. Die Hunde laufen.",
] * 3


@pytest.fixture(scope="module")
def trained():
    return train()


def train(texts=TEXTS, vocab_size=150, lowercase=True):
    return make_encoder_tokenizer("wordpiece", texts, vocab_size=vocab_size, lowercase=lowercase)


def surface(tokenizer, text, **options):
    (pieces,) = tokenizer.pieces([text], **options)
    return tokenizer.tokens(pieces.ids)


def test_trained_vocabulary(trained):
    assert trained.tokens(range(5)) == list(SPECIAL_TOKENS)
    assert trained.lowercase
    assert trained.vocab_size <= 150
    assert surface(trained, "The house") == ["the", "house"]
    # Every character of the texts is known, wherever it stands.
    everything = "".join(sorted(set("".join(TEXTS))))
    for text in (everything, everything[::-1], *TEXTS):
        assert trained.unknown not in trained.pieces([text])[0].ids
    # What cannot stand inside of a word has no piece there.
    tokens = set(trained.tokens(range(trained.vocab_size)))
    assert {"##h", "h", ".", "中"} < tokens
    assert not {"##.", "##中"} & tokens


def test_training_keeps_capitals_and_accents_if_told():
    assert surface(train(vocab_size=200, lowercase=False), "The über")[0] == "The"
    assert not train(vocab_size=200, lowercase=False).lowercase


def test_vocabulary_size():
    assert train(vocab_size=120).vocab_size == 120
    # All pieces there are: there is no other to make.
    assert train(vocab_size=5000).vocab_size < 400


def test_rare_characters_give_way():
    # 90 letters that occur once among 180,000 characters take no more than half of the vocabulary.
    rare = [chr(0x1000 + i) for i in range(30)] + [chr(0x1401 + i) for i in range(60)]
    tokenizer = train(["のは " * 90_000, " ".join(reversed(rare))], vocab_size=60)
    known = [letter for letter in rare if surface(tokenizer, letter) != ["[UNK]"]]
    assert 0 < len(known) < 20
    assert known == rare[: len(known)]
    assert surface(tokenizer, "のは") == ["のは"]
    assert tokenizer.vocab_size <= 60


def test_what_occurs_once_is_not_joined():
    tokenizer = train(["abc de de"], vocab_size=100)
    assert surface(tokenizer, "abc de") == ["a", "##b", "##c", "de"]


def test_vocabulary_without_room_for_the_characters():
    with pytest.raises(ConfigError, match=r"config.task.tokenizer.size is 12: .* 4 char.* need 13"):
        train(["abcd"], vocab_size=12)
    assert train(["abcd"], vocab_size=13).vocab_size == 13


@pytest.mark.parametrize("nothing", [[], ["", " \n"], ["\x00"]], ids=str)
def test_texts_without_words(nothing):
    with pytest.raises(DataError, match="no words"):
        train(nothing)


TRAIN = f"""
from transformer.data.tokenizers.word_pieces import train_word_pieces
print(ascii(train_word_pieces({TEXTS!r}, 150, True).identity()))
"""


def test_training_is_deterministic(trained):
    assert train(iter(TEXTS)).identity() == trained.identity()
    assert train(TEXTS[::-1]).identity() == trained.identity()
    # Half of a character is nothing.
    assert train([*TEXTS, "\ud800"]).identity() == trained.identity()
    # The library's hash tables are in another order in each process.
    other = subprocess.run(
        [sys.executable, "-c", TRAIN],
        capture_output=True,
        check=True,
        text=True,
        env={**os.environ, "RAYON_NUM_THREADS": "1"},
    )
    assert other.stdout.strip() == ascii(trained.identity())


def test_save_and_load(tmp_path, trained, write):
    assert load_encoder_tokenizer(tmp_path) is None
    of_file = make(write("vocab.txt", "\n".join([*SPECIAL_TOKENS, *"thea", "##h", "##e"])))
    for saved in (trained, of_file, train(vocab_size=200, lowercase=False)):
        saved.save(tmp_path)
        path = str(tmp_path / "tokenizer.json")
        # The file's own word counts, whatever the caller says.
        made = make_encoder_tokenizer(path, [], vocab_size=3, lowercase=not saved.lowercase)
        for loaded in (load_encoder_tokenizer(tmp_path), made):
            assert loaded.identity() == saved.identity()
            assert loaded.lowercase == saved.lowercase
            assert loaded.vocab_size == saved.vocab_size
            text = "The unaffable [MASK] Éa"
            assert surface(loaded, text) == surface(saved, text)
            assert surface(loaded, text, special=True) == surface(saved, text, special=True)


def test_other_programs_find_the_template(tmp_path, trained):
    trained.save(tmp_path)
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert library.encode("a").tokens == ["[CLS]", "a", "[SEP]"]


def from_elsewhere(vocabulary=("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##b", "b")):
    model = models.WordPiece({t: 2 * i for i, t in enumerate(vocabulary)}, unk_token="[UNK]")
    return tokenizers.Tokenizer(model)


def test_a_tokenizer_json_from_elsewhere(tmp_path):
    library = from_elsewhere()
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    library.normalizer = normalizers.Lowercase()
    library.add_special_tokens(["[CLS]", "[SEP]"])
    library.post_processor = processors.BertProcessing(("[SEP]", 6), ("[CLS]", 4))
    library.enable_truncation(1)
    library.enable_padding(length=20)
    library.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_encoder_tokenizer(tmp_path)
    # Ids may have gaps.
    assert (tokenizer.vocab_size, tokenizer.mask) == (15, 8)
    assert np.flatnonzero(tokenizer.continues).tolist() == [12]
    assert tokenizer.lowercase
    assert surface(tokenizer, "AB a b") == ["a", "##b", "a", "b"]
    assert tokenizer.decode([4, 10, 12, 6]) == "ab"


def test_special_tokens_among_the_words_are_not_made_of_text():
    library = from_elsewhere()
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = WordPieceTokenizer(library)
    assert surface(tokenizer, "a [MASK] a") == ["a", "[UNK]", "a"]
    assert surface(tokenizer, "a [MASK] a", special=True) == ["a", "[MASK]", "a"]


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def make(path):
    return make_encoder_tokenizer(path, [], vocab_size=0, lowercase=True)


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_line_ends_of_a_vocabulary(write, ends):
    # U+2028 is a token of some vocabularies.
    tokens = [*SPECIAL_TOKENS, "a", "\u2028", "##b"]
    for last in (ends, ""):
        tokenizer = make(write("vocab.txt", ends.join(tokens) + last))
        assert tokenizer.tokens(range(tokenizer.vocab_size)) == tokens


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        (b"[PAD]\n\xff", "not UTF-8 text: byte 6"),
        ("[PAD]\n[UNK]\na\nb\na\n", r"line 5 repeats 'a' of line 3"),
        ("[PAD]\n\n[UNK]", "line 2 is empty"),
        ("[PAD]\n[UNK]\n[CLS]\na", r"lacks \[SEP\], \[MASK\]"),
    ],
)
def test_unusable_vocabularies_are_named(write, content, message):
    path = write("vocab.txt", content)
    with pytest.raises(DataError, match=message) as error:
        make(path)
    assert str(error.value).startswith(path)


def json_of(change):
    description = json.loads(from_elsewhere().to_str())
    change(description["model"])
    return json.dumps(description)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not a tokenizer.json"),
        (b"\xff\xfe", "is UTF-16"),
        ("{}", "not a tokenizer.json"),
        (tokenizers.Tokenizer(models.BPE()).to_str(), "RoBERTa needs ByteLevel alone"),
        (
            tokenizers.Tokenizer(models.WordLevel({}, "a")).to_str(),
            "the vocabulary lacks <pad>, <unk>, <cls>, <eos>, <mask>, which ESM",
        ),
        (json_of(lambda model: model["vocab"].pop("[MASK]")), r"lacks \[MASK\]"),
        (json_of(lambda model: model.update(unk_token="a")), "unknown token is 'a'"),
    ],
    ids=["empty", "binary", "other", "bpe", "words", "mask", "unknown"],
)
def test_unusable_tokenizer_json_is_named(write, tmp_path, content, message):
    path = write("tokenizer.json", content)
    for load in (lambda: make(path), lambda: load_encoder_tokenizer(tmp_path)):
        with pytest.raises(DataError, match=message) as error:
            load()
        assert str(error.value).startswith(path)


def test_an_unknown_token_that_is_no_piece():
    library = from_elsewhere(["[PAD]", "[CLS]", "[SEP]", "[MASK]", "a"])
    library.add_special_tokens(["[UNK]"])
    with pytest.raises(DataError, match="unknown token"):
        WordPieceTokenizer(library)


@pytest.mark.parametrize("name", ["none.txt", "none.json"])
def test_missing_file(tmp_path, name):
    with pytest.raises(DataError, match=f"{name} does not exist"):
        make(str(tmp_path / name))


def test_unknown_kind():
    with pytest.raises(ConfigError, match=r"tokenizer.kind is 'words'.*wordpiece.*vocab.txt"):
        make("words")
