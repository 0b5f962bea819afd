"""BERT's word pieces, with the place of each in its text.

A text is cleaned, split at white space, around punctuation and around Chinese characters, and each
word is then covered from left to right by the longest pieces of the vocabulary (Devlin et al. 2018,
section 3, and its published code). The work is done by the library `tokenizers`, as for nearly all
BERT models in use. It differs from the published Python code only in rare characters:

* `Σ` at the end of a word becomes `σ` and not `ς` where text is lowercased.
* Its tables of Unicode are older than Python's: some 100 later signs of punctuation do not split a
  word, and some 400 later accents and marks of format stay in it. Unassigned characters stay too.
* The Chinese characters U+2B820 to U+2B91F are no words by themselves.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from transformer.data.reading.text import read_text
from transformer.data.tokenizers.pieces import (
    EncoderTokenizer,
    SpecialTokens,
    special_tokens,
    whole_characters,
)
from transformer.errors import ConfigError, DataError

# In the order of their ids in vocabularies trained here.
SPECIAL_TOKENS = SpecialTokens("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


_PREFIX = "##"
# Longer words are unknown as a whole, in BERT's published code.
_LONGEST_WORD = 100
# Pieces that occur only once are useless.
_MIN_FREQUENCY = 2
# The characters of a vocabulary cover at least this fraction of the text: the default of
# SentencePiece (Kudo and Richardson 2018).
_COVERAGE = 0.9995


class WordPieceTokenizer(EncoderTokenizer):
    """Text to BERT's word pieces and back; tokens that continue a word start with `##`.

    The tokens of a vocabulary are shown as they are in it. A word of control characters only has
    no piece.
    """

    usual_names = SPECIAL_TOKENS

    def __init__(
        self, library_tokenizer: tokenizers.Tokenizer, names: SpecialTokens = SPECIAL_TOKENS
    ) -> None:
        """Wraps a tokenizer; its padding and truncation are ignored.

        Args:
            library_tokenizer: the tokenizer. Its layout of special tokens around texts is kept if
                rows can have it; otherwise it is BERT's.
            names: the names of its special tokens.

        Raises:
            DataError: if its model is not WordPiece or lacks one of BERT's special tokens.
        """
        model = library_tokenizer.model
        if not isinstance(model, models.WordPiece):
            raise DataError(
                f"the tokenizer's model is {type(model).__name__}: BERT needs one of WordPiece."
            )
        self._require_special(library_tokenizer, names, "BERT")
        if model.unk_token != names.unknown or model.token_to_id(names.unknown) is None:
            raise DataError(
                f"its unknown token is {model.unk_token!r}: BERT needs {names.unknown!r}."
            )

        library_tokenizer.no_truncation()
        library_tokenizer.no_padding()
        # Tokens that are there keep their ids and become special ones.
        library_tokenizer.add_special_tokens(
            [
                tokenizers.AddedToken(token, special=True, normalized=False)
                for token in names
                if token not in special_tokens(library_tokenizer)
            ]
        )
        self._prefix = model.continuing_subword_prefix
        if library_tokenizer.decoder is None:
            library_tokenizer.decoder = decoders.WordPiece(prefix=self._prefix)
        # `tokenizer.json` cannot say whether special tokens are found in a text.
        library_tokenizer.encode_special_tokens = True
        super().__init__(library_tokenizer, names)

    def _variant(self, *, words: bool, special: bool) -> tokenizers.Tokenizer:
        if not special:
            return self._tokenizer
        return tokenizers.Tokenizer.from_str(self._tokenizer.to_str())

    def _goes_on(self, token: str) -> bool:
        return token.startswith(self._prefix) and len(token) > len(self._prefix)


def train_word_pieces(texts: Iterable[str], vocab_size: int, lowercase: bool) -> WordPieceTokenizer:
    """A tokenizer of word pieces trained on some texts; the same texts give the same vocabulary.

    Args:
        texts: what a vocabulary is trained on.
        vocab_size: tokens to train, the five special ones included; there are fewer if the texts
            do not have so many pieces.
        lowercase: whether to lowercase and drop accents, as BERT's uncased models do.

    Raises:
        ConfigError: if `vocab_size` is too small for the texts' characters.
        DataError: if the texts have no words.
    """
    return _of_vocabulary(_train(texts, vocab_size, lowercase), lowercase)


def read_word_pieces(path: str, lowercase: bool) -> WordPieceTokenizer:
    """The tokenizer of a BERT `vocab.txt` with one token a line.

    Raises:
        DataError: if the file is missing, damaged, or not BERT's.
    """
    vocabulary = read_vocabulary(path)
    try:
        return _of_vocabulary(vocabulary, lowercase)
    except DataError as error:
        raise DataError(f"{path} is not BERT's vocab.txt: {error}") from None


def read_vocabulary(path: str) -> dict[str, int]:
    """The tokens of a `vocab.txt`, numbered by their lines from 0."""
    return vocabulary_of_lines(read_text(path), path)


def vocabulary_of_lines(text: str, path: str | Path) -> dict[str, int]:
    """The tokens in the text of a `vocab.txt`, numbered by its lines from 0.

    Raises:
        DataError: if a line is empty, or is there twice.
    """
    vocabulary: dict[str, int] = {}
    # Only line feeds end a line: some vocabularies have other separators of Unicode as tokens.
    for index, token in enumerate(text.removesuffix("\n").split("\n")):
        if not token:
            raise DataError(f"{path}, line {index + 1} is empty: every line must be a token.")
        if token in vocabulary:
            raise DataError(
                f"{path}, line {index + 1} repeats {token!r} of line {vocabulary[token] + 1}: a "
                f"token's id is the number of its line, and it can have only one."
            )
        vocabulary[token] = index
    return vocabulary


def _of_vocabulary(vocabulary: dict[str, int], lowercase: bool) -> WordPieceTokenizer:
    """BERT's tokenizer with a vocabulary.

    Raises:
        DataError: if it lacks a special token.
    """
    library_tokenizer = _without_vocabulary(lowercase)
    library_tokenizer.model = models.WordPiece(
        vocabulary, unk_token="[UNK]", max_input_chars_per_word=_LONGEST_WORD
    )
    tokenizer = WordPieceTokenizer(library_tokenizer)
    # For other programs that read the tokenizer.json: they expect it to add [CLS] and [SEP].
    library_tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", tokenizer.separator), ("[CLS]", tokenizer.start)
    )
    return tokenizer


def _without_vocabulary(lowercase: bool) -> tokenizers.Tokenizer:
    library_tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    # Accents go with the capitals, as in the published code.
    library_tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    library_tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library_tokenizer.decoder = decoders.WordPiece(prefix=_PREFIX)
    return library_tokenizer


def _train(texts: Iterable[str], vocab_size: int, lowercase: bool) -> dict[str, int]:
    """A vocabulary of word pieces, special tokens first.

    How BERT's vocabulary was trained was never published. As in the library, pieces are merged by
    how often they occur together (Sennrich et al. 2016), not by likelihood.
    """
    library_tokenizer = _without_vocabulary(lowercase)
    texts = [whole_characters(text) for text in texts]
    alphabet, inside = _alphabet(library_tokenizer, texts, vocab_size)
    # The library numbers `##` pieces as it meets them in a hash table, another order in each
    # process, and breaks ties by those numbers. Given as special tokens they come in ours. It also
    # breaks ties in an alphabet that is too large by chance, so that it gets one that is not.
    first = [*SPECIAL_TOKENS, *(_PREFIX + character for character in inside)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=_MIN_FREQUENCY,
        special_tokens=first,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        continuing_subword_prefix=_PREFIX,
        show_progress=False,
    )
    library_tokenizer.train_from_iterator(texts, trainer)
    return library_tokenizer.get_vocab()


def _alphabet(
    library_tokenizer: tokenizers.Tokenizer, texts: Sequence[str], vocab_size: int
) -> tuple[list[str], list[str]]:
    """The characters that are single pieces, and those that are `##` pieces too.

    They are the most frequent characters: as many as fill half of the vocabulary, or more if those
    do not cover the texts.

    Raises:
        ConfigError: if the vocabulary has no room for them.
        DataError: if there is no character.
    """
    normalizer, pre_tokenizer = library_tokenizer.normalizer, library_tokenizer.pre_tokenizer
    assert normalizer is not None
    assert pre_tokenizer is not None
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(normalizer.normalize_str(text))
    counts.pop(" ", None)
    if not counts:
        raise DataError("the texts have no words: there is nothing to make word pieces of.")

    total, covered, size = counts.total(), 0, len(SPECIAL_TOKENS)
    alphabet: list[str] = []
    inside: list[str] = []
    for character, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if size >= vocab_size // 2 and covered >= _COVERAGE * total:
            break
        # Punctuation and Chinese characters are words by themselves.
        joins = len(pre_tokenizer.pre_tokenize_str(normalizer.normalize_str("a" + character))) == 1
        alphabet.append(character)
        inside += [character] if joins else []
        size += 1 + joins
        covered += count
    if size > vocab_size:
        raise ConfigError(
            f"config.task.tokenizer.size is {vocab_size}: the texts' {len(alphabet):,} characters "
            f"and the {len(SPECIAL_TOKENS)} special tokens alone need {size:,}."
        )
    return sorted(alphabet), sorted(inside)
