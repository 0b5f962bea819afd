"""Builds tokenizers of published T5s from a folder, like the library `transformers`.

Its class takes the pieces of `tokenizer.json` or `spiece.model` and defines everything else itself.
The tokens for spans follow the pieces of `spiece.model`, with `<extra_id_0>` last.
"""

import base64
import json
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from transformer.data.reading.json_text import parse_json, shown
from transformer.data.reading.library_errors import in_our_words
from transformer.data.tokenizers.library import require_ids
from transformer.data.tokenizers.protocol import TOKENIZER_FILE
from transformer.data.tokenizers.sentencepieces import CONTROL, USER_DEFINED, read_pieces
from transformer.errors import DataError
from transformer.interop.checked_values import number, refuse
from transformer.interop.formats.tokenizers import SPACE
from transformer.interop.side_files import CONFIG, SETTINGS, SideFile, SideFiles
from transformer.interop.tokenizers.added import AddedTokens, read_added_tokens
from transformer.interop.tokenizers.files import read_tokenizer_text
from transformer.interop.tokenizers.sentence_settings import IRRELEVANT, SENTENCEPIECE, USUAL
from transformer.types import Json

# The library's class for T5s, and the classes that use a `tokenizer.json` unchanged.
_OWN, _AS_IT_IS = "T5Tokenizer", ("PreTrainedTokenizer", "TokenizersBackend")
_SENTINEL = "<extra_id_"
# Replacements that clean up spaces in decoded texts, if a file asks for it.
_CLEANED = [
    *((f" {mark}", mark) for mark in ".?!,"),
    (" ' ", "'"),
    *((f" {short}", short) for short in ("n't", "'m", "'s", "'ve", "'re")),
]
# The id of the unknown token in its class, whatever the file says.
_UNKNOWN = 2
_END = "</s>"
# Maximum number of tokens for spans; published models have 100 or a few hundred.
_MOST_EXTRA = 1 << 16
_USUAL_NAMES = {"eos_token": _END, "unk_token": "<unk>", "pad_token": "<pad>"}


def read_t5_tokenizer(folder: Path, files: SideFiles, given: str | None, size: int) -> str:
    """Builds the text of a `tokenizer.json` for a run.

    Only the end is a special token, which is spelled in letters when it occurs in a text. Tokens
    that a text may contain, such as `<extra_id_0>`, are not special.

    Args:
        folder: the folder of the model.
        files: its side files.
        given: the text of a `tokenizer.json` to use instead of the folder's.
        size: the size of the model's table. Tokens beyond it are left out, because the model could
            not read them: by default a hundred tokens for spans are added.

    Raises:
        DataError: if there is no tokenizer, or it is unknown here.
    """
    settings = files[SETTINGS]
    said = settings.text_or_none("tokenizer_class") or files[CONFIG].text_or_none("tokenizer_class")
    kind = said or _OWN
    kind = kind.removesuffix("Fast")
    text = given
    if text is None and (folder / TOKENIZER_FILE).is_file():
        text, _ = read_tokenizer_text(folder / TOKENIZER_FILE)
    if kind not in (_OWN, *_AS_IT_IS) or (text is None and kind != _OWN):
        raise DataError(
            f"{settings.where}: the tokenizer_class {kind!r} cannot be read here"
            + (f" without a {TOKENIZER_FILE}." if kind in _AS_IT_IS else ".")
        )
    described = None if text is None else _described(text, folder)
    added = read_added_tokens(files, described or {})
    with in_our_words(f"{folder} holds no tokenizer of a T5"):
        if kind == _OWN:
            made = _as_t5(folder, settings, added, described)
        else:
            made = require_ids(tokenizers.Tokenizer.from_str(text), f"{folder / TOKENIZER_FILE}")
            added.add_to(made, {})
    added.require_ids(made, folder)
    settings.irrelevant(IRRELEVANT)
    settings.usual(USUAL)
    if settings.flag("clean_up_tokenization_spaces", False):
        made.decoder = decoders.Sequence(
            [made.decoder, decoders.Fuse(), *(decoders.Replace(*pair) for pair in _CLEANED)]
        )
    if settings.flag("split_special_tokens", False):
        return made.to_str()
    return _with_tokens_in_texts(made, added.names({}).get("eos_token", _END), size)


def _as_t5(
    folder: Path, settings: SideFile, added: AddedTokens, described: Json | None
) -> tokenizers.Tokenizer:
    """The tokenizer that the library's class for T5s would make."""
    count = settings.whole("extra_ids", 100, least=0, most=_MOST_EXTRA)
    sentinels = [f"{_SENTINEL}{index}>" for index in range(count)]
    if described is None:
        table = read_pieces(folder / SENTENCEPIECE)
        pieces = [(piece.text, piece.score) for piece in table.pieces]
        pieces += [(token, 0.0) for token in reversed(sentinels)]
        additional: list[tokenizers.AddedToken] | None = [
            tokenizers.AddedToken(piece.text, special=piece.kind == CONTROL, normalized=False)
            for piece in table.pieces
            if piece.kind in (CONTROL, USER_DEFINED)
        ]
        character_map = table.character_map
    else:
        if described["model"].get("type", "Unigram") != "Unigram":
            raise DataError(
                f"{folder / TOKENIZER_FILE} has a model {shown(described['model']['type'])}, and "
                f"T5s have one of the type 'Unigram'. If it is right, tokenizer_config.json has to "
                f"say so with the tokenizer_class 'PreTrainedTokenizerFast'."
            )
        pieces = _scored(described["model"].get("vocab"), folder / TOKENIZER_FILE)
        additional = added.additional
        character_map = _character_map(described.get("normalizer"))
    span_tokens = [
        tokenizers.AddedToken(token, special=True, normalized=False) for token in sentinels
    ]
    if additional is not None:
        there = [token for token in additional if _SENTINEL in token.content]
        if there and count > 0 and len(there) != count:
            raise DataError(
                f"{settings.where} has extra_ids {count}, and additional_special_tokens has "
                f"{len(there)} of the kind {_SENTINEL}0>."
            )
        span_tokens = additional if there else [*additional, *span_tokens]
    end = added.names(_USUAL_NAMES).get("eos_token")
    if end is None:
        raise DataError(f"{settings.where.parent}: eos_token is null, and texts need an end.")
    made = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=_UNKNOWN, byte_fallback=False))
    if character_map:
        made.normalizer = normalizers.Precompiled(character_map)
    spaces = pre_tokenizers.Metaspace(SPACE, "always")
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), spaces])
    made.decoder = decoders.Metaspace(SPACE, "always")
    added._replace(additional=span_tokens).add_to(made, _USUAL_NAMES)
    made.post_processor = processors.TemplateProcessing(
        single=["$A", end],
        pair=["$A", end, "$B", end],
        special_tokens=[(end, made.token_to_id(end))],
    )
    return made


def _described(text: str, folder: Path) -> Json:
    """Parses the object of a `tokenizer.json`.

    Raises:
        DataError: if it is none.
    """
    described = parse_json(text, folder / TOKENIZER_FILE)
    if not isinstance(described, dict) or not isinstance(described.get("model"), dict):
        raise DataError(f"{folder / TOKENIZER_FILE} is not a tokenizer.json.")
    return described


def _scored(vocabulary: object, path: Path) -> list[tuple[str, float]]:
    """The pieces of a Unigram model.

    Raises:
        DataError: if one is none.
    """
    found = []
    for piece in vocabulary if isinstance(vocabulary, list) else [vocabulary]:
        if not (isinstance(piece, list) and len(piece) == 2 and isinstance(piece[0], str)):
            refuse(path, "vocab", piece, "a piece with its score")
        found.append((piece[0], number(path, shown(piece[0]), piece[1])))
    return found


def _character_map(normalizer: Json | list[Json] | None) -> bytes:
    """The first compiled character map in a normalizer's description; the rest is ignored."""
    found = normalizer or []
    if isinstance(found, dict):
        found = found["normalizers"] if found.get("type") == "Sequence" else [found]
    for part in found:
        if part.get("type") == "Precompiled" and part.get("precompiled_charsmap"):
            return base64.b64decode(part["precompiled_charsmap"])
    return b""


def _with_tokens_in_texts(made: tokenizers.Tokenizer, end: str, size: int) -> str:
    """The text of a tokenizer whose only special token is the end, which texts cannot produce."""
    described = json.loads(made.to_str())
    found = [token for token in described["added_tokens"] if token["id"] < size]
    for token in found:
        token["special"] = token["content"] == end
    described["added_tokens"] = found
    vocabulary = described["model"].get("vocab")
    while (
        isinstance(vocabulary, list)
        and len(vocabulary) > size
        and vocabulary[-1][0].startswith(_SENTINEL)
    ):
        vocabulary.pop()
    return json.dumps(described, ensure_ascii=False)
