"""Converts tokenizers in other libraries' model files to the library `tokenizers`."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from transformer.data.reading import bounds
from transformer.data.reading.json_text import shown
from transformer.data.reading.library_errors import in_our_words
from transformer.errors import DataError

# SentencePiece's character for a space.
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"

# How texts are split into words: each expression isolates its matches in the rest of the previous.
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_EXPRESSIONS = {
    "gpt-2": (_GPT2,),
    # llama.cpp's default for unknown models.
    "default": (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"),
    "smollm": (r"\p{N}", _GPT2),
    "llama-bpe": (_LLAMA3,),
    "llama3": (_LLAMA3,),
    "llama-v3": (_LLAMA3,),
    "qwen2": (_LLAMA3.replace("{1,3}", ""),),
}
SPLITTINGS = tuple(_EXPRESSIONS)
# With these, a word that is a token needs no merges.
LLAMA3_SPLITTINGS = ("llama-bpe", "llama3", "llama-v3")


def byte_level_tokenizer(
    tokens: Sequence[str], merges: Iterable[tuple[str, str]], splitting: str, path: Path
) -> tokenizers.Tokenizer:
    """Byte-pair encoding over bytes, as in GPT-2.

    Args:
        tokens: all tokens, in the order of their ids.
        merges: pairs of tokens, the first merged first.
        splitting: how texts are split into words, one of `SPLITTINGS`.
        path: the file, for messages.

    Raises:
        DataError: if the parts do not fit.
    """
    model = _bpe(tokens, merges, path, ignore_merges=splitting in LLAMA3_SPLITTINGS)
    tokenizer = tokenizers.Tokenizer(model)
    if splitting == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = words_of(splitting)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def words_of(splitting: str, *, spaced: bool = False) -> pre_tokenizers.PreTokenizer:
    """Splits texts into words, and words into bytes.

    Args:
        splitting: one of `SPLITTINGS`.
        spaced: adds a space before a text that begins with none.
    """
    splits = [
        pre_tokenizers.Split(tokenizers.Regex(expression), "isolated")
        for expression in _EXPRESSIONS[splitting]
    ]
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=spaced, use_regex=False)
    return pre_tokenizers.Sequence([*splits, to_bytes])


def scored_tokenizer(
    tokens: Sequence[str],
    scores: Sequence[float],
    path: Path,
    *,
    unknown: str | None,
    space: str = SPACE,
    prefix: bool = True,
) -> tokenizers.Tokenizer:
    """Byte-pair encoding with scores instead of merges, as in SentencePiece and Llama 2.

    Two neighbours are merged if together they are a token; the highest score first, then the
    leftmost. Characters without a token become tokens of bytes.

    Args:
        tokens: all tokens, in the order of their ids; `<0x0A>` is the byte 10.
        scores: the score of each token.
        path: the file, for messages.
        unknown: the token for text that not even bytes can express.
        space: the character for a space in `tokens`.
        prefix: whether to add a space before each text, and remove it when decoding.

    Raises:
        DataError: if the parts do not fit.
    """
    for token, score in zip(tokens, scores, strict=True):
        if not math.isfinite(score) or len(token) > bounds.TOKEN_CHARACTERS:
            raise DataError(
                f"{path} is damaged: its token {shown(token)} has {len(token)} characters and the "
                f"score {score}; at most {bounds.TOKEN_CHARACTERS} and a finite one are expected."
            )
    merges = _merges(tokens, scores)
    model = _bpe(tokens, merges, path, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    tokenizer = tokenizers.Tokenizer(model)
    before = [normalizers.Prepend(space)] if prefix else []
    before += [normalizers.Replace(" ", space)] if space != " " else []
    tokenizer.normalizer = normalizers.Sequence(before)
    after = [decoders.Replace(space, " ")] if space != " " else []
    after += [decoders.ByteFallback(), decoders.Fuse()]
    after += [decoders.Strip(" ", 1, 0)] if prefix else []
    tokenizer.decoder = decoders.Sequence(after)
    return tokenizer


def _bpe(
    tokens: Sequence[str], merges: Iterable[tuple[str, str]], path: Path, **options: object
) -> models.BPE:
    vocabulary = {token: index for index, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        twice = next(token for i, token in enumerate(tokens) if vocabulary[token] != i)
        raise DataError(f"{path} is damaged: its tokenizer has the token {twice!r} twice.")
    with in_our_words(f"{path} holds no tokenizer that can be built"):
        return models.BPE(vocabulary, list(merges), **options)


def _merges(tokens: Sequence[str], scores: Sequence[float]) -> list[tuple[str, str]]:
    """All pairs that form a token, the best score first.

    Among pairs that form the same token, those with the longer left part come first: where they
    overlap, as in `aa`, `a`, `aa`, the leftmost then wins, as required.
    """
    known = frozenset(tokens)
    merges = [
        (score, cut, token)
        for token, score in zip(tokens, scores, strict=True)
        for cut in range(1, len(token))
        if token[:cut] in known and token[cut:] in known
    ]
    merges.sort(key=lambda merge: merge[:2], reverse=True)
    return [(token[:cut], token[cut:]) for _, cut, token in merges]
