"""Tokenizers for tests, by their jobs."""

from transformer.data.tokenizers.choosing import load_tokenizer, make_tokenizer
from transformer.data.tokenizers.pieces import EncoderTokenizer
from transformer.data.tokenizers.protocol import SentenceTokenizer, TextTokenizer


def make_text_tokenizer(value, text, vocab_size):
    return make_tokenizer(TextTokenizer, value, [text], vocab_size=vocab_size)


def load_text_tokenizer(folder):
    return load_tokenizer(TextTokenizer, folder)


def make_sentence_tokenizer(value, lines, vocab_size):
    return make_tokenizer(SentenceTokenizer, value, lines, vocab_size=vocab_size)


def load_sentence_tokenizer(folder):
    return load_tokenizer(SentenceTokenizer, folder)


def make_encoder_tokenizer(value, texts, *, vocab_size, lowercase):
    return make_tokenizer(
        EncoderTokenizer, value, texts, vocab_size=vocab_size, lowercase=lowercase
    )


def load_encoder_tokenizer(folder):
    return load_tokenizer(EncoderTokenizer, folder)
