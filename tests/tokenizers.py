"""Tokenizers for tests, by their jobs."""

from transformer.data.tokenizers.choosing import TokenizerChoice, load_tokenizer
from transformer.data.tokenizers.pieces import EncoderTokenizer
from transformer.data.tokenizers.protocol import SentenceTokenizer, TextTokenizer


def make_text_tokenizer(value, text, vocab_size):
    return TokenizerChoice(value, vocab_size).make(TextTokenizer, [text])


def load_text_tokenizer(folder):
    return load_tokenizer(TextTokenizer, folder)


def make_sentence_tokenizer(value, lines, vocab_size):
    return TokenizerChoice(value, vocab_size).make(SentenceTokenizer, lines)


def load_sentence_tokenizer(folder):
    return load_tokenizer(SentenceTokenizer, folder)


def make_encoder_tokenizer(value, texts, *, vocab_size, lowercase):
    return TokenizerChoice(value, vocab_size, None if lowercase else False).make(
        EncoderTokenizer, texts
    )


def load_encoder_tokenizer(folder):
    return load_tokenizer(EncoderTokenizer, folder)
