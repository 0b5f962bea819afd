"""Builds the tokenizer of a published encoder from its files, like `transformers.AutoTokenizer`.

The class named in `tokenizer_config.json` decides what the files mean. The classes of our families
take only the vocabulary from a `tokenizer.json`; `tokenizer_config.json` says how texts are
normalised and split, and its missing keys have the defaults of the class. Generic classes use
`tokenizer.json` unchanged.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import tokenizers
from tokenizers import models, pre_tokenizers

from transformer.data.reading.json_text import shown
from transformer.data.reading.library_errors import in_our_words
from transformer.data.tokenizers.kinds.encoder import parse_encoder_tokenizer
from transformer.data.tokenizers.layouts import Layout, layout_of, template
from transformer.data.tokenizers.library import parse_tokenizer_json
from transformer.data.tokenizers.pieces import NAME_KEYS, EncoderTokenizer, special_tokens
from transformer.data.tokenizers.protocol import TOKENIZER_FILE
from transformer.errors import DataError
from transformer.interop.checked_values import number, whole, without_fraction
from transformer.interop.side_files import (
    CONFIG,
    SETTINGS,
    SideFile,
    SideFiles,
)
from transformer.interop.tokenizers.added import BY_ID, read_added_tokens
from transformer.interop.tokenizers.files import read_tokenizer_text

# Files of a vocabulary alone.
VOCABULARY, PIECES, MERGES = "vocab.txt", "vocab.json", "merges.txt"
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
# Settings of classes that clean texts.
OF_CLEANING = ("do_lower_case", "strip_accents", "tokenize_chinese_chars")


class EncoderClass(NamedTuple):
    """A class of tokenizers of encoders, which a family defines.

    Attributes:
        make: makes a tokenizer without added tokens from side files, their folder, and special
            tokens by role.
        special: default special tokens by role.
        ignored: settings that it does not use.
        separators: how many separators stand between two texts; None takes the layout of the
            `tokenizer.json`.
        second_type: the token type of the second text.
        separator: the role of the token that ends each text.
    """

    make: Callable[[SideFiles, Path, dict[str, str]], tokenizers.Tokenizer]
    special: dict[str, str]
    ignored: tuple[str, ...]
    separators: int | None = None
    second_type: int = 0
    separator: str = "sep_token"


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
    files: SideFiles,
    folder: Path,
    classes: Mapping[str, EncoderClass],
    usual_class: str,
    text: str | None = None,
) -> ReadTokenizer:
    """Reads the tokenizer in the folder of an encoder.

    Args:
        files: the side files of the folder.
        folder: a folder with `tokenizer.json`, `vocab.txt`, or `vocab.json` and `merges.txt`.
        classes: the classes of our families, by the names in the library without `Fast`.
        usual_class: the default class, one of them or a generic one.
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
    classes = {**classes, **dict.fromkeys(_GENERIC, _GENERIC_CLASS)}
    known = _class_of(files, classes, usual_class, folder)
    added = read_added_tokens(files, files[TOKENIZER_FILE])
    if BY_ID in settings:
        files[TOKENIZER_FILE].irrelevant({"added_tokens": f"{SETTINGS} says it"})
    names = added.names(known.special)
    with in_our_words(f"{folder} holds no tokenizer that can be built"):
        library = known.make(files, folder, names)
        added.add_to(library, known.special)
    added.require_ids(library, folder)
    layout = _layout(library, known, names, settings)
    if any(name not in library.get_vocab() for name in layout[:2]):
        raise DataError(f"{folder}: the tokenizer has no {layout.start} or {layout.separator}.")
    library.post_processor = template(layout, library.get_vocab())
    fields = {"start": layout.start, "separator": layout.separator}
    fields |= _other_names(library, names, classes[usual_class].special, settings.where)
    _require_special(library, fields, folder)
    tokenizer = parse_encoder_tokenizer(library.to_str(), folder, fields)
    # Generic classes store the key but ignore it.
    spaces = library.pre_tokenizer
    first_space = isinstance(spaces, pre_tokenizers.ByteLevel) and spaces.add_prefix_space
    return ReadTokenizer(tokenizer, max_length, finds_special, first_space)


def _class_of(
    files: SideFiles, classes: Mapping[str, EncoderClass], usual_class: str, folder: Path
) -> EncoderClass:
    """The class that `AutoTokenizer` would choose for these files.

    Raises:
        DataError: if the class is unknown here.
    """
    settings, config = files[SETTINGS], files[CONFIG]
    of_config = config.text_or_none("tokenizer_class")
    name = settings.text_or_none("tokenizer_class") or of_config or usual_class
    known = classes.get(name.removesuffix("Fast"))
    if known is None:
        raise DataError(
            f"{folder}: tokenizer_class is {name!r}: what can be read are {', '.join(classes)}. "
            f"Or give another tokenizer with --tokenizer=tokenizer.json."
        )
    settings.irrelevant(dict.fromkeys(known.ignored, f"{name} does not use it"))
    return known


# ------------------------------------------------------------------------------------- classes


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


_GENERIC = ("PreTrainedTokenizer", "TokenizersBackend")
_GENERIC_CLASS = EncoderClass(_generic, {}, (*OF_CLEANING, "add_prefix_space"))


def library_model(files: SideFiles, folder: Path, kind: str) -> SideFile:
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


def no_tokenizer(folder: Path) -> DataError:
    """The error for a folder without any of the files."""
    return DataError(
        f"{folder} has neither a {TOKENIZER_FILE} nor a {VOCABULARY}, nor {PIECES} and {MERGES}."
    )


def default_names(kind: type[EncoderTokenizer]) -> dict[str, str]:
    """The special tokens of a kind of tokenizer, by role."""
    return {NAME_KEYS[field]: name for field, name in kind.usual_names._asdict().items()}


# ---------------------------------------------------------------------------- layout and names


def _layout(
    library: tokenizers.Tokenizer, known: EncoderClass, names: dict[str, str], settings: SideFile
) -> Layout:
    """The layout of special tokens around texts.

    Raises:
        DataError: if our rows have no such layout.
    """
    start, separator = (names.get(key, "") for key in ("cls_token", known.separator))
    if known.separators is not None:
        layout = Layout(start, separator, known.separators, known.second_type)
        if not known.second_type:
            settings.irrelevant({"model_input_names": "its token types are all 0"})
            return layout
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
        inputs = ["token_type_ids"] if known.second_type else []
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
