"""Builds the tokenizer of a published encoder from its files, like `transformers.AutoTokenizer`.

The class named in `tokenizer_config.json` decides what the files mean. BERT's and RoBERTa's classes
take only the vocabulary from a `tokenizer.json`; `tokenizer_config.json` says how texts are
normalised and split, and its missing keys have the defaults of the class. Generic classes use
`tokenizer.json` unchanged.
"""

from pathlib import Path
from typing import NamedTuple

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from transformer.data.reading.content import read_bounded
from transformer.data.reading.json_text import shown
from transformer.data.reading.library_errors import in_our_words
from transformer.data.reading.text import decode_text
from transformer.data.tokenizers.byte_pieces import BytePieceTokenizer
from transformer.data.tokenizers.kinds.encoder import parse_encoder_tokenizer
from transformer.data.tokenizers.layouts import Layout, layout_of, template
from transformer.data.tokenizers.library import parse_tokenizer_json
from transformer.data.tokenizers.pieces import NAME_KEYS, EncoderTokenizer, special_tokens
from transformer.data.tokenizers.protocol import TOKENIZER_FILE
from transformer.data.tokenizers.word_pieces import WordPieceTokenizer, vocabulary_of_lines
from transformer.errors import DataError
from transformer.interop.checked_values import number, whole, without_fraction
from transformer.interop.side_files import (
    CONFIG,
    SETTINGS,
    SideFile,
    SideFiles,
    read_vocabulary,
    require_vocabulary,
)
from transformer.interop.tokenizers.added import BY_ID, read_added_tokens
from transformer.interop.tokenizers.files import merge_pairs, read_lines, read_tokenizer_text

_VOCABULARY, _PIECES, _MERGES = "vocab.txt", "vocab.json", "merges.txt"
_BERT, _ROBERTA, _GENERIC = "BERT", "RoBERTa", "generic"
# The library's classes, without the suffix "Fast", and what they do.
_CLASSES = {
    "BertTokenizer": _BERT,
    "DistilBertTokenizer": _BERT,
    "RobertaTokenizer": _ROBERTA,
    "PreTrainedTokenizer": _GENERIC,
    "TokenizersBackend": _GENERIC,
}
_USUAL_NAMES = {
    kind: {NAME_KEYS[field]: name for field, name in tokenizer.usual_names._asdict().items()}
    for kind, tokenizer in ((_BERT, WordPieceTokenizer), (_ROBERTA, BytePieceTokenizer))
}
_USUAL_NAMES[_ROBERTA] |= {"bos_token": "<s>", "eos_token": "</s>"}
_USUAL_NAMES[_GENERIC] = {}
# The library writes larger numbers for "no limit".
_NO_LIMIT = 10**9
_MOST = float("inf")
_IRRELEVANT = {
    **dict.fromkeys(("vocab_file", "merges_file"), "where it came from"),
    **dict.fromkeys(("clean_up_tokenization_spaces", "errors"), "how tokens are shown"),
    **dict.fromkeys(("padding_side", "pad_token_type_id"), "of padding, which nobody sees"),
    **dict.fromkeys(
        ("max_length", "pad_to_multiple_of", "stride", "truncation_strategy"),
        "what callers ask for",
    ),
    "chat_template": "of other programs",
}
# Settings that these classes now ignore, with their fixed values; earlier versions used them.
_USUAL: dict[str, object] = {
    "truncation_side": "right",
    "never_split": None,
    "do_basic_tokenize": True,
    "clean_text": True,
    "wordpieces_prefix": "##",
    "trim_offsets": True,
}
_ONLY_OF_BERT = ("do_lower_case", "strip_accents", "tokenize_chinese_chars")


class ReadTokenizer(NamedTuple):
    """A tokenizer and how to use it, according to its files.

    Attributes:
        tokenizer: the tokenizer.
        max_length: maximum number of tokens of a row; None if not given.
        finds_special: whether special tokens are recognized in texts.
        first_space: whether the first word of a text gets a space, if tokens contain spaces.
    """

    tokenizer: EncoderTokenizer
    max_length: int | None
    finds_special: bool
    first_space: bool


def read_encoder_tokenizer(
    files: SideFiles, folder: Path, usual_class: str, text: str | None = None
) -> ReadTokenizer:
    """Reads the tokenizer in the folder of an encoder.

    Args:
        files: the side files of the folder.
        folder: a folder with `tokenizer.json`, `vocab.txt`, or `vocab.json` and `merges.txt`.
        usual_class: the default class, one of `_CLASSES`.
        text: the text of another `tokenizer.json` to use unchanged; None takes the folder's.

    Raises:
        DataError: if there is no tokenizer, or it cannot be read.
    """
    settings = files[SETTINGS]
    settings.irrelevant(_IRRELEVANT)
    settings.usual(_USUAL)
    finds_special = not settings.flag("split_special_tokens", False)
    limit = settings.get("model_max_length", settings.get("max_len"))
    max_length = None
    # None, numbers below 1 and very large numbers mean that there is no limit.
    said = None if limit is None else number(settings.where, "model_max_length", limit, most=_MOST)
    if said is not None and 0 < said < _NO_LIMIT:
        max_length = whole(settings.where, "model_max_length", without_fraction(limit))
    if text is not None:
        return ReadTokenizer(
            parse_encoder_tokenizer(text, folder), max_length, finds_special, first_space=True
        )
    whose = _class_of(files, usual_class, folder)
    added = read_added_tokens(files, files[TOKENIZER_FILE])
    if BY_ID in settings:
        files[TOKENIZER_FILE].irrelevant({"added_tokens": f"{SETTINGS} says it"})
    names = added.names(_USUAL_NAMES[whose])
    with in_our_words(f"{folder} holds no tokenizer that can be built"):
        library = _MAKERS[whose](files, folder, names)
        added.add_to(library, _USUAL_NAMES[whose])
    added.require_ids(library, folder)
    layout = _layout(library, whose, names, settings)
    if any(name not in library.get_vocab() for name in layout[:2]):
        raise DataError(f"{folder}: the tokenizer has no {layout.start} or {layout.separator}.")
    library.post_processor = template(layout, library.get_vocab())
    fields = {"start": layout.start, "separator": layout.separator}
    usual = _USUAL_NAMES[_CLASSES[usual_class]]
    fields |= _other_names(library, names, usual, settings.where)
    _require_special(library, fields, folder)
    tokenizer = parse_encoder_tokenizer(library.to_str(), folder, fields)
    # Generic classes store the key but ignore it.
    spaces = library.pre_tokenizer
    first_space = isinstance(spaces, pre_tokenizers.ByteLevel) and spaces.add_prefix_space
    return ReadTokenizer(tokenizer, max_length, finds_special, first_space)


def _class_of(files: SideFiles, usual_class: str, folder: Path) -> str:
    """What the class does that `AutoTokenizer` would choose for these files.

    Raises:
        DataError: if the class is unknown here.
    """
    settings, config = files[SETTINGS], files[CONFIG]
    of_config = config.text_or_none("tokenizer_class")
    name = settings.text_or_none("tokenizer_class") or of_config or usual_class
    whose = _CLASSES.get(name.removesuffix("Fast"))
    if whose is None:
        raise DataError(
            f"{folder}: tokenizer_class is {name!r}: what can be read are {', '.join(_CLASSES)}. "
            f"Or give another tokenizer with --tokenizer=tokenizer.json."
        )
    ignored = {
        _BERT: ("add_prefix_space",),
        _ROBERTA: _ONLY_OF_BERT,
        _GENERIC: (*_ONLY_OF_BERT, "add_prefix_space"),
    }[whose]
    settings.irrelevant(dict.fromkeys(ignored, f"{name} does not use it"))
    return whose


# ------------------------------------------------------------------------------------- classes


def _bert(files: SideFiles, folder: Path, names: dict[str, str]) -> tokenizers.Tokenizer:
    """BERT's tokenizer: word pieces, cleaned and split according to the settings."""
    vocabulary = _library_model(files, folder, "WordPiece").get("vocab")
    path = folder / _VOCABULARY
    if vocabulary is not None:
        require_vocabulary(vocabulary, folder / TOKENIZER_FILE)
    elif path.is_file():
        vocabulary = vocabulary_of_lines(decode_text(read_bounded(path), str(path)), path)
    else:
        raise DataError(_nothing(folder))
    settings = files[SETTINGS]
    unknown = names.get("unk_token", "")
    if unknown not in vocabulary:
        raise DataError(
            f"{folder}: the vocabulary has no {unknown or 'token'} that stands for what it lacks: "
            f"say which does as unk_token in {SETTINGS}."
        )
    accents = settings.get("strip_accents")
    library = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=unknown))
    library.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.flag("tokenize_chinese_chars", True),
        strip_accents=None if accents is None else settings.flag("strip_accents", False),
        lowercase=settings.flag("do_lower_case", True),
    )
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece(prefix="##")
    return library


def _roberta(files: SideFiles, folder: Path, names: dict[str, str]) -> tokenizers.Tokenizer:
    """RoBERTa's tokenizer: byte-level pieces."""
    content = _library_model(files, folder, "BPE")
    vocabulary, merges = content.get("vocab"), content.get("merges")
    if vocabulary is None or merges is None:
        paths = folder / _PIECES, folder / _MERGES
        if not all(path.is_file() for path in paths):
            raise DataError(_nothing(folder))
        # Checks limits before the library reads the file itself.
        read_vocabulary(paths[0])
        read_lines(paths[1])
        model = models.BPE.from_file(*map(str, paths))
    else:
        path = folder / TOKENIZER_FILE
        model = models.BPE(require_vocabulary(vocabulary, path), merge_pairs(merges, path))
    spaced = files[SETTINGS].flag("add_prefix_space", False)
    library = tokenizers.Tokenizer(model)
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=spaced)
    library.decoder = decoders.ByteLevel()
    return library


def _generic(files: SideFiles, folder: Path, names: dict[str, str]) -> tokenizers.Tokenizer:
    """The tokenizer of an unchanged `tokenizer.json`."""
    path = folder / TOKENIZER_FILE
    if not path.is_file():
        raise DataError(f"{folder} has no {TOKENIZER_FILE}, which its tokenizer_class needs.")
    content = files[TOKENIZER_FILE]
    for key in content:
        content.get(key)
    _mark_library(content)
    return parse_tokenizer_json(read_tokenizer_text(path)[0], path)


_MAKERS = {_BERT: _bert, _ROBERTA: _roberta, _GENERIC: _generic}


def _library_model(files: SideFiles, folder: Path, kind: str) -> SideFile:
    """The model in `tokenizer.json`; empty if there is no such file.

    Raises:
        DataError: if it has another type.
    """
    content = files[TOKENIZER_FILE]
    model = content.inside("model")
    if len(content) and model.get("type", kind) != kind:
        raise DataError(
            f"{content.where} has a model of the type {shown(model['type'])}, and tokenizer_class "
            f"(or its default) makes one of {kind}."
        )
    ignored = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
    content.irrelevant(dict.fromkeys(ignored, f"{SETTINGS} says it"))
    ignored = set(model) - {"type", "vocab", "merges"}
    model.irrelevant(dict.fromkeys(ignored, f"{SETTINGS} says it"))
    _mark_library(content)
    return model


def _mark_library(content: SideFile) -> None:
    """Records keys of a `tokenizer.json` that callers decide instead."""
    reasons = {"version": "who wrote it", "padding": "what callers ask for"}
    truncation = content.get("truncation")
    if not isinstance(truncation, dict) or truncation.get("direction", "Right") == "Right":
        reasons["truncation"] = "what callers ask for"
    content.irrelevant(reasons)


def _nothing(folder: Path) -> str:
    return (
        f"{folder} has neither a {TOKENIZER_FILE} nor a {_VOCABULARY}, nor {_PIECES} and {_MERGES}."
    )


# ---------------------------------------------------------------------------- layout and names


def _layout(
    library: tokenizers.Tokenizer, whose: str, names: dict[str, str], settings: SideFile
) -> Layout:
    """The layout of special tokens around texts.

    Raises:
        DataError: if our rows have no such layout.
    """
    start, separator = (names.get(key, "") for key in ("cls_token", "sep_token"))
    if whose == _ROBERTA:
        settings.irrelevant({"model_input_names": "its token types are all 0"})
        return Layout(start, separator, 2, 0)
    if whose == _BERT:
        layout = Layout(start, separator, 1, 1)
    else:
        found = layout_of(library)
        if found is None:
            raise DataError(
                f"{settings.where.parent / TOKENIZER_FILE}: its post_processor puts special tokens "
                f"in other places than BERT's and RoBERTa's do."
            )
        layout = found
    inputs = settings.texts("model_input_names")
    if settings.peek("model_input_names") is None:
        inputs = ["token_type_ids"] if whose == _BERT else []
    return layout if "token_type_ids" in inputs else layout._replace(second_type=0)


def _require_special(library: tokenizers.Tokenizer, fields: dict[str, str], folder: Path) -> None:
    """Refuses ordinary words as special tokens, because they would match anywhere in texts.

    Raises:
        DataError: names the first.
    """
    special = special_tokens(library)
    says = {"start": "post_processor", "separator": "post_processor", "unknown": "unk_token"}
    for field, key in says.items():
        if fields[field] not in special:
            raise DataError(
                f"{folder / TOKENIZER_FILE}: {fields[field]!r} of its {key} is no special token."
            )


def _other_names(
    library: tokenizers.Tokenizer, names: dict[str, str], usual: dict[str, str], where: Path
) -> dict[str, str]:
    """The names of the unknown, padding and mask tokens.

    Raises:
        DataError: if one has neither a name nor a default.
    """
    vocabulary = library.get_vocab()
    found = {}
    for field in ("pad", "unknown", "mask"):
        key = NAME_KEYS[field]
        name = names.get(key, usual.get(key, ""))
        if field == "unknown" and isinstance(library.model, models.WordPiece):
            name = library.model.unk_token
        if name not in vocabulary:
            raise DataError(f"{where} names no {key} that is in the vocabulary: it needs one.")
        found[field] = name
    return found
