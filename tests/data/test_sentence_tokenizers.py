import io
import json
import subprocess
import sys

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from tests.tokenizers import load_sentence_tokenizer, make_sentence_tokenizer
from transformer.data.tokenizers.sentences import LibrarySentenceTokenizer
from transformer.errors import ConfigError, DataError, MissingDependencyError

LINES = [
    "Das Haus ist grün , und das Haus war 1984 grün .",
    "Ein Hund läuft über die Straße .",
    "The house is green , and the house was green in 1984 .",
    "A dog runs across the street .",
    "",
] * 4
BPE = make_sentence_tokenizer("bpe", LINES, 400)
CHARACTER = make_sentence_tokenizer("character", [*LINES, "</s>"], 0)

sentences = st.text(max_size=60).map(lambda text: " ".join(text.split()))


def encode(tokenizer, line):
    (ids,) = tokenizer.encode_all([line])
    assert ids.dtype == np.int32
    return ids


def surface(tokenizer, line):
    return tokenizer.tokens(encode(tokenizer, line))


@given(line=sentences)
def test_bpe_round_trip(line):
    ids = encode(BPE, line)
    assert BPE.decode(ids) == line
    assert BPE.end not in ids


@given(line=sentences)
def test_character_round_trip(line):
    tokenizer = make_sentence_tokenizer("character", [line, "a"], 0)
    ids = encode(tokenizer, line)
    assert len(ids) == len(line)
    assert tokenizer.decode(ids) == line


def test_vocabulary_size_counts_the_end_token():
    assert make_sentence_tokenizer("bpe", LINES, 300).vocab_size == 300
    assert make_sentence_tokenizer("bpe", LINES, 257).vocab_size == 257
    tokenizer = make_sentence_tokenizer("character", ["cab", "bad"], 0)
    assert tokenizer.vocab_size == 5
    assert tokenizer.end == 4
    assert encode(tokenizer, "abcd").tolist() == [0, 1, 2, 3]


def test_first_word_is_the_token_it_is_elsewhere():
    assert surface(BPE, "Haus Haus") == ["▁Haus", "▁Haus"]


def test_digits_are_single_tokens():
    assert surface(BPE, "1984 1984") == ["▁", *"1984", "▁", *"1984"]
    assert surface(BPE, "house1984") == ["▁house", *"1984"]


def test_letters_outside_ascii_are_joined():
    # The second byte of ü is ¼ in the byte-level alphabet, which is a number to Unicode.
    assert surface(BPE, "grün") == ["▁grün"]
    assert surface(BPE, "Straße") == ["▁Straße"]


def test_tokens_are_readable():
    ids = [*encode(BPE, "Das Haus").tolist(), BPE.end]
    assert BPE.tokens(ids) == ["▁Das", "▁Haus", "</s>"]
    assert surface(CHARACTER, "A dog") == ["A", "▁", "d", "o", "g"]
    assert surface(BPE, "天")[-1] == "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("tokenizer", [BPE, CHARACTER], ids=["bpe", "character"])
def test_the_end_in_a_text_is_text(tokenizer):
    for line in ("</s>", "a </s> dog</s>"):
        ids = encode(tokenizer, line)
        assert tokenizer.end not in ids
        assert tokenizer.decode(ids) == line


@pytest.mark.parametrize("tokenizer", [BPE, CHARACTER], ids=["bpe", "character"])
def test_batches_encode_like_lines(tokenizer):
    for line, ids in zip(LINES, tokenizer.encode_all(LINES), strict=True):
        np.testing.assert_array_equal(ids, encode(tokenizer, line))
    assert tokenizer.encode_all([]) == []
    assert encode(tokenizer, "").shape == (0,)
    assert tokenizer.decode([]) == ""


def test_unknown_characters_are_named():
    with pytest.raises(DataError, match=r"'天' \(U\+5929\).*tokenizer=bpe"):
        CHARACTER.encode_all(["A dog", "天"])


TRAIN = f"""
from tests.tokenizers import make_sentence_tokenizer
print(ascii(make_sentence_tokenizer("bpe", {LINES!r}, 400).identity()))
"""


def test_training_is_deterministic():
    # Another process: the order of a hash table is drawn anew in each.
    command = [sys.executable, "-c", TRAIN]
    other = subprocess.run(command, capture_output=True, check=True, text=True)
    assert other.stdout.strip() == ascii(BPE.identity())


@pytest.mark.parametrize("tokenizer", [BPE, CHARACTER], ids=["bpe", "character"])
def test_save_and_load(tmp_path, tokenizer):
    tokenizer.save(tmp_path)
    path = str(tmp_path / "tokenizer.json")
    for loaded in (load_sentence_tokenizer(tmp_path), make_sentence_tokenizer(path, [], 0)):
        assert loaded.identity() == tokenizer.identity()
        assert (loaded.vocab_size, loaded.end) == (tokenizer.vocab_size, tokenizer.end)
        ids = encode(loaded, "A dog </s>")
        np.testing.assert_array_equal(ids, encode(tokenizer, "A dog </s>"))
        assert loaded.decode(ids) == "A dog </s>"
    if tokenizer is CHARACTER:
        with pytest.raises(DataError, match="does not know"):
            load_sentence_tokenizer(tmp_path).encode_all(["天"])


def test_an_empty_folder_has_no_tokenizer(tmp_path):
    assert load_sentence_tokenizer(tmp_path) is None


@pytest.mark.parametrize("content", ["", "{}", "text"])
def test_damaged_tokenizer_json(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(DataError, match=r"not a tokenizer.json"):
        load_sentence_tokenizer(tmp_path)


@pytest.mark.parametrize("kind", ["none.json", "none.model"])
def test_missing_file(tmp_path, kind):
    if kind.endswith(".model"):
        pytest.importorskip("sentencepiece")
    with pytest.raises(DataError, match=rf"{kind} does not exist"):
        make_sentence_tokenizer(str(tmp_path / kind), [], 0)


def test_unknown_kind():
    with pytest.raises(ConfigError, match=r"config.task.tokenizer is 'byte'.*character, bpe.*json"):
        make_sentence_tokenizer("byte", LINES, 0)


@pytest.mark.parametrize("size", [0, 256])
def test_bpe_needs_all_bytes_and_an_end(size):
    with pytest.raises(ConfigError, match=f"config.task.bpe_vocab_size is {size}"):
        make_sentence_tokenizer("bpe", LINES, size)


def word_level(words, **special):
    """A tokenizer of words, as others make them: the unknown and special tokens are words too."""
    library = tokenizers.Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(words)}, "<unk>")
    )
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    library.add_special_tokens(["<unk>", *special.get("special", ())])
    return library


@pytest.mark.parametrize("end", ["</s>", "<eos>", "<|endoftext|>", "[SEP]", "<|im_end|>"])
def test_the_end_of_others_is_found(end):
    library = word_level(["<unk>", end, "dog"], special=[end])
    assert LibrarySentenceTokenizer(library).end == 1
    assert LibrarySentenceTokenizer(library).vocab_size == 3


def test_the_first_of_two_ends_is_taken():
    library = word_level(["<unk>", "[SEP]", "</s>"], special=["[SEP]", "</s>"])
    assert LibrarySentenceTokenizer(library).end == 2


def test_an_end_is_added():
    tokenizer = LibrarySentenceTokenizer(word_level(["<unk>", "dog"]))
    assert (tokenizer.end, tokenizer.vocab_size) == (2, 3)
    assert tokenizer.tokens([2]) == ["</s>"]


def test_ids_may_have_gaps():
    library = tokenizers.Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1, "dog": 9}, "<unk>"))
    assert LibrarySentenceTokenizer(library).vocab_size == 10


@pytest.mark.parametrize("special", [True, False])
def test_an_end_among_the_words_is_not_made_of_text(special):
    library = word_level(["<unk>", "</s>", "<", "/s>", "dog"])
    library.add_tokens([tokenizers.AddedToken("</s>", special=special, lstrip=True)])
    tokenizer = LibrarySentenceTokenizer(library)
    assert surface(tokenizer, "dog </s> cat dog") == ["dog", "<", "/s>", "<unk>", "dog"]


def test_an_end_that_merges_make_is_not_made_of_text(tmp_path):
    vocabulary = {token: index for index, token in enumerate(["<", "/", "s", ">", "/s", "/s>"])}
    vocabulary["</s>"] = len(vocabulary)
    merges = [("/", "s"), ("/s", ">"), ("<", "/s>")]
    library = tokenizers.Tokenizer(models.BPE(vocabulary, merges))
    assert library.encode("s</s>").tokens == ["s", "</s>"]
    tokenizer = LibrarySentenceTokenizer(library)
    assert tokenizer.end == 6
    assert surface(tokenizer, "s</s>") == ["s", "<", "/s>"]
    tokenizer.save(tmp_path)
    assert surface(load_sentence_tokenizer(tmp_path), "s</s>") == ["s", "<", "/s>"]


def test_special_tokens_of_unigram_models_are_not_made_of_text():
    library = tokenizers.Tokenizer(models.Unigram())
    library.pre_tokenizer = pre_tokenizers.Metaspace()
    library.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=80,
        special_tokens=["<unk>", "</s>", "<pad>"],
        unk_token="<unk>",
        show_progress=False,
    )
    library.train_from_iterator([*LINES, "</s> <pad>"], trainer)
    tokenizer = LibrarySentenceTokenizer(library)
    assert tokenizer.end == 1
    ids = encode(tokenizer, "A dog</s> <pad>")
    assert not {1, 2} & set(ids.tolist())
    assert tokenizer.decode(ids) == "A dog</s> <pad>"
    assert surface(tokenizer, "天") == ["▁", "<unk>"]
    assert surface(tokenizer, "A")[0].startswith("▁")


def test_special_tokens_of_one_letter_are_left_out():
    tokenizer = LibrarySentenceTokenizer(
        word_level(["<unk>", "</s>", "|", "dog"], special=["</s>", "|"])
    )
    assert surface(tokenizer, "dog | dog") == ["dog", "dog"]


def test_nothing_is_added_or_cut():
    library = word_level(["<unk>", "[SEP]", "[CLS]", "dog"], special=["[SEP]", "[CLS]"])
    library.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[SEP]", 1), ("[CLS]", 2)]
    )
    library.enable_padding(length=4)
    library.enable_truncation(2)
    tokenizer = LibrarySentenceTokenizer(library)
    assert encode(tokenizer, "dog").tolist() == [3]
    assert encode(tokenizer, "dog dog dog").tolist() == [3, 3, 3]
    assert encode(tokenizer, "").tolist() == []
    assert json.loads(tokenizer.identity())["padding"] is None


def sentencepiece_model(**options):
    sentencepiece = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES),
        model_writer=model,
        vocab_size=45,
        minloglevel=2,
        num_threads=1,
        **options,
    )
    return model.getvalue()


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_sentencepiece(tmp_path, model_type):
    path = tmp_path / "own.model"
    path.write_bytes(sentencepiece_model(model_type=model_type))
    tokenizer = make_sentence_tokenizer(str(path), [], 0)
    assert (tokenizer.vocab_size, tokenizer.end) == (45, 2)
    for line, ids in zip(LINES, tokenizer.encode_all(LINES), strict=True):
        np.testing.assert_array_equal(ids, encode(tokenizer, line))
        assert tokenizer.decode(ids) == line
    assert encode(tokenizer, "").shape == (0,)
    assert tokenizer.encode_all([]) == []
    assert not {1, 2} & set(encode(tokenizer, "<s> dog </s>").tolist())
    assert "".join(surface(tokenizer, "Das Haus")) == "▁Das▁Haus"
    assert tokenizer.tokens([tokenizer.end]) == ["</s>"]

    folder = tmp_path / "run"
    folder.mkdir()
    tokenizer.save(folder)
    loaded = load_sentence_tokenizer(folder)
    assert loaded.identity() == tokenizer.identity()
    np.testing.assert_array_equal(encode(loaded, LINES[0]), encode(tokenizer, LINES[0]))


def test_sentencepiece_without_an_end(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_model(eos_id=-1))
    with pytest.raises(DataError, match=r"no token for the end of a sentence.*--eos_id"):
        load_sentence_tokenizer(tmp_path)


@pytest.mark.parametrize("content", [b"", b"text"])
def test_damaged_sentencepiece_model(tmp_path, content):
    pytest.importorskip("sentencepiece")
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(DataError, match="not a SentencePiece model"):
        load_sentence_tokenizer(tmp_path)


def test_sentencepiece_is_optional(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(MissingDependencyError, match=r"'sentencepiece'.*\.\[sentencepiece\]"):
        make_sentence_tokenizer("some.model", [], 0)


def test_characters_without_an_a():
    tokenizer = make_sentence_tokenizer("character", ["123", "45"], 0)
    assert tokenizer.decode(tokenizer.encode_all(["3 1".replace(" ", "2")])[0]) == "321"
