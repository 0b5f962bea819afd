"""A tokenizer for tests: its words are numbers."""

from types import SimpleNamespace

import numpy as np

from transformer.data.tokenizers.word_pieces import WordPieceTokenizer


class Words(WordPieceTokenizer):
    """A tokenizer whose words are numbers: their ids."""

    vocab_size = 0
    pad, unknown, start, separator, mask = range(5)
    first = 5

    def __init__(self, vocab_size=5000):
        self.vocab_size = vocab_size
        self.special = np.arange(vocab_size) < self.first
        self.continues = np.arange(vocab_size) % 3 == 0

    def pieces(self, texts, *, special=False):
        return [SimpleNamespace(ids=np.array(text.split(), np.int32)) for text in texts]


WORDS = Words()
