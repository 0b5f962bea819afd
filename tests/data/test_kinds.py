"""A new kind of tokenizer and a new source of text are new files and nothing else."""

import numpy as np
import pytest

from transformer.data.embedded import texts
from transformer.data.text.sources import TEXTS, read_texts
from transformer.data.tokenizers import choosing, kinds
from transformer.data.tokenizers.choosing import TokenizerChoice, load_tokenizer, require_tokenizer
from transformer.data.tokenizers.pieces import EncoderTokenizer
from transformer.data.tokenizers.protocol import SentenceTokenizer, TextTokenizer
from transformer.errors import ConfigError, WorkdirError

KIND = '''
"""Amino acids by their letters."""

import numpy as np

from transformer.data.tokenizers.protocol import Kind, SentenceTokenizer

LETTERS = "ACDEFGHIKLMNPQRSTVWY"


class Residues(SentenceTokenizer):
    vocab_size, end = len(LETTERS) + 1, len(LETTERS)

    def encode_all(self, texts):
        return [np.array([LETTERS.index(x) for x in text], np.int32) for text in texts]

    def decode(self, ids):
        return "".join(LETTERS[i] for i in ids)

    def tokens(self, ids):
        return [LETTERS[i] for i in ids]

    def identity(self):
        return LETTERS

    def save(self, folder):
        (folder / "residues.txt").write_text(LETTERS)


KIND = Kind(
    role=SentenceTokenizer,
    values=("residues",),
    files={},
    kept_in="residues.txt",
    make=lambda value, texts, vocab_size, lowercase: Residues(),
    load=lambda folder: Residues(),
)
'''


@pytest.fixture
def more(tmp_path, monkeypatch):
    """Adds a file to a package, from a folder of its own."""

    def add(package, name, content):
        folder = tmp_path / package.__name__
        folder.mkdir()
        (folder / f"{name}.py").write_text(content)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])

    choosing._all_kinds.cache_clear()
    yield add
    choosing._all_kinds.cache_clear()


def test_a_kind_is_a_file(more, tmp_path):
    with pytest.raises(ConfigError, match="choose from character, bpe, or give the path of a"):
        TokenizerChoice("residues").make(SentenceTokenizer, [])
    choosing._all_kinds.cache_clear()
    more(kinds, "residues", KIND)
    made = TokenizerChoice("residues").make(SentenceTokenizer, [])
    assert load_tokenizer(SentenceTokenizer, tmp_path) is None
    made.save(tmp_path)
    loaded = require_tokenizer(SentenceTokenizer, tmp_path)
    np.testing.assert_array_equal(loaded.encode("CAY"), [1, 0, 19])
    assert loaded.decode(loaded.encode_targets(["CAY"])[0]) == "CAY"
    # It is of no use to other jobs.
    for role in (TextTokenizer, EncoderTokenizer):
        assert load_tokenizer(role, tmp_path) is None
    with pytest.raises(ConfigError, match="character, byte, bpe, or"):
        TokenizerChoice("residues").make(TextTokenizer, [])


def test_a_folder_without_a_tokenizer(tmp_path):
    names = "source.spm, tokenizer.model or tokenizer.json"
    with pytest.raises(WorkdirError, match=f"no {names}"):
        require_tokenizer(SentenceTokenizer, tmp_path)
    with pytest.raises(WorkdirError, match=r"no tokenizer\.json\."):
        require_tokenizer(TextTokenizer, tmp_path)


def test_a_text_is_a_file(more):
    more(texts, "counting", 'def read(validation_fraction):\n    return "one two", "three"\n')
    assert read_texts("", "", 0.1, "counting") == ("one two", "three")
    assert TEXTS == ("docstrings", "peptides", "plays", "purposes")
