"""Tokenizers of published decoders, put together from all files that speak of them.

The rules are those of `AutoTokenizer` in the library `transformers`: `tokenizer_config.json` names
a class; the classes known here bring their own way to cut texts, and take vocabulary and merges
from `tokenizer.json`, or from `vocab.json` and `merges.txt`. Under another name, and without one, a
`tokenizer.json` is taken as it is. Then tokens are added that the other files name.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from transformer.data.text import read_text
from transformer.data.tokenizers import TOKENIZER_FILE, parse_tokenizer_json
from transformer.errors import DataError
from transformer.interop.foreign_tokenizers import SPACE, words_of
from transformer.interop.side_files import CONFIG, SideFile, SideFiles, read_json

SETTINGS, SPECIAL_TOKENS, ADDED = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
_VOCABULARY, _MERGES, _SENTENCEPIECE = "vocab.json", "merges.txt", "tokenizer.model"
# The roles of special tokens, in the order in which they are added.
_ROLES = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
_MORE = ("extra_special_tokens", "additional_special_tokens")
_AS_IT_IS = ("PreTrainedTokenizer", "TokenizersBackend")
_IRRELEVANT = {
    "model_max_length": "nothing is cut",
    **dict.fromkeys(("padding_side", "truncation_side", "truncation_strategy"), "nothing is cut"),
    **dict.fromkeys(
        (
            "name_or_path",
            "tokenizer_file",
            "special_tokens_map_file",
            "backend",
            "is_local",
            "local_files_only",
            "processor_class",
        ),
        "where it came from",
    ),
    "model_input_names": "how it is returned",
    "clean_up_tokenization_spaces": "it is not done to byte-pair encoding",
    "use_default_system_prompt": "of conversations",
    "sp_model_kwargs": "of tokenizer.model",
}


class _Kind(NamedTuple):
    """A class of tokenizers.

    Attributes:
        make: vocabulary, merges and settings to a tokenizer without added tokens.
        special: special tokens by role, where no file says otherwise.
        files: whether its vocabulary may be in `vocab.json` and `merges.txt`.
    """

    make: Callable[[dict[str, int], list[tuple[str, str]], SideFile], tokenizers.Tokenizer]
    special: Mapping[str, str]
    files: bool


def decoder_tokenizer(
    files: SideFiles, folder: Path, kind: str, vocab_size: int
) -> tokenizers.Tokenizer:
    """The tokenizer of a published decoder.

    Args:
        files: of the model.
        folder: they are in.
        kind: `model_type` of `config.json`.
        vocab_size: V, of the model.

    Raises:
        DataError: if there is none, or files contradict each other.
    """
    settings = files[SETTINGS]
    settings.irrelevant(_IRRELEVANT)
    settings.usual({"split_special_tokens": False, "errors": "replace"})
    path = folder / TOKENIZER_FILE
    known = _known_class(files, kind, path)
    if path.is_file():
        text = read_text(str(path))
        found = parse_tokenizer_json(text, path)
        content = json.loads(text)
        # What is added to texts is there already, and they do not read these then.
        settings.irrelevant(dict.fromkeys(("add_bos_token", "add_eos_token"), "tokenizer.json"))
        if known is not None and isinstance(found.model, models.BPE):
            remade = known.make(*_parts(content), settings)
            if found.post_processor is not None:
                remade.post_processor = found.post_processor
            found = remade
        else:
            settings.irrelevant({"legacy": "of another class"})
            settings.usual({"add_prefix_space": False})
        _add_tokens(found, files, known, content.get("added_tokens") or [], vocab_size)
        return found
    if known is None or not known.files:
        raise _no_tokenizer(folder, settings)
    vocabulary, merges = read_vocabulary(folder)
    found = known.make(vocabulary, merges, settings)
    special = _add_tokens(found, files, known, [], vocab_size)
    _put_around(found, settings, special)
    return found


def _known_class(files: SideFiles, kind: str, path: Path) -> _Kind | None:
    """The class that remakes a tokenizer; None takes `tokenizer.json` as it is.

    Raises:
        DataError: if there is no `tokenizer.json`, and the class is not known.
    """
    settings, there = files[SETTINGS], path.is_file()
    place = settings if "tokenizer_class" in settings else files[CONFIG]
    if settings is place:
        files[CONFIG].irrelevant({"tokenizer_class": f"{SETTINGS} says it"})
    named = place.peek("tokenizer_class")
    if named is None:
        # Who has nothing but a tokenizer.json means it.
        return None if there else _CLASSES.get(_USUAL_CLASS.get(kind, ""))
    named = str(named).removesuffix("Fast")
    bytes_in_llama = named == "LlamaTokenizer" and there and "ByteLevel" in read_text(str(path))
    if kind in ("mistral", "mixtral") or bytes_in_llama:
        named = _AS_IT_IS[0]
    if not there:
        # Its words are cut as theirs are, whatever a Qwen2 says of itself.
        named = "Qwen2Tokenizer" if kind == "qwen2" else named
    if named in _CLASSES or named in _AS_IT_IS:
        place["tokenizer_class"]
    return _CLASSES.get(named)


def _no_tokenizer(folder: Path, settings: SideFile) -> DataError:
    there = [name for name in (_VOCABULARY, _MERGES, _SENTENCEPIECE) if (folder / name).is_file()]
    of_class = settings.get("tokenizer_class")
    return DataError(
        f"{folder} has no {TOKENIZER_FILE}"
        + (f", and {' and '.join(there)}" if there else "")
        + (f" of the tokenizer_class {of_class}" if of_class else "")
        + (" cannot be read here" if there else "")
        + ": save_pretrained of the library transformers writes a tokenizer.json, which is then "
        "read; or give one with --tokenizer=tokenizer.json."
    )


def read_vocabulary(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """What is in `vocab.json` and `merges.txt`.

    Raises:
        DataError: if one is missing or damaged.
    """
    missing = [name for name in (_VOCABULARY, _MERGES) if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"{folder} has no tokenizer: expected a {TOKENIZER_FILE}, or {_VOCABULARY} and "
            f"{_MERGES}. Give another with --tokenizer=tokenizer.json."
        )
    vocabulary: dict[str, Any] = read_json(folder / _VOCABULARY)
    if not all(type(index) is int and index >= 0 for index in vocabulary.values()):
        raise DataError(f"{folder / _VOCABULARY} is no vocabulary: tokens have ids.")
    lines = read_text(str(folder / _MERGES)).split("\n")
    # As GPT-2 has it: the first line says which version it is.
    pairs = [tuple(line.split()) for line in lines if line.strip() and not line.startswith("#ver")]
    if not all(len(pair) == 2 for pair in pairs):
        raise DataError(f"{folder / _MERGES} is damaged: a line has two tokens.")
    return vocabulary, pairs  # type: ignore[return-value]


def _parts(content: Mapping[str, Any]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a `tokenizer.json`; old ones write a merge with a space."""
    merges = content["model"].get("merges", [])
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
    return content["model"]["vocab"], [(left, right) for left, right in pairs]


def _bpe(
    vocabulary: dict[str, int], merges: list[tuple[str, str]], **options: Any
) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer(models.BPE(vocabulary, merges, **options))
    except Exception as error:  # The library raises bare Exception.
        raise DataError(f"the vocabulary and the merges make no tokenizer: {error}.") from None


def _gpt2(
    vocabulary: dict[str, int], merges: list[tuple[str, str]], settings: SideFile
) -> tokenizers.Tokenizer:
    made = _bpe(vocabulary, merges)
    spaced = settings.get("add_prefix_space") is True
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=spaced)
    made.decoder = decoders.ByteLevel()
    return made


def _qwen2(
    vocabulary: dict[str, int], merges: list[tuple[str, str]], settings: SideFile
) -> tokenizers.Tokenizer:
    made = _bpe(vocabulary, merges)
    spaced = settings.get("add_prefix_space") is True
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = words_of("qwen2", spaced=spaced)
    made.decoder = decoders.ByteLevel()
    return made


def _llama(
    vocabulary: dict[str, int], merges: list[tuple[str, str]], settings: SideFile
) -> tokenizers.Tokenizer:
    made = _bpe(vocabulary, merges, fuse_unk=True, byte_fallback=True)
    spaced = settings.get("add_prefix_space") is not False
    # Theirs without `legacy` puts a space in front of a text, with it in front of each part.
    scheme = "never"
    if spaced:
        scheme = "always" if settings.get("legacy") else "first"
    made.pre_tokenizer = pre_tokenizers.Metaspace(
        replacement=SPACE, prepend_scheme=scheme, split=False
    )
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*steps, *([decoders.Strip(" ", 1, 0)] if spaced else [])])
    return made


def _gemma(
    vocabulary: dict[str, int], merges: list[tuple[str, str]], settings: SideFile
) -> tokenizers.Tokenizer:
    settings.irrelevant({"add_prefix_space": "Gemma puts no space in front"})
    unknown = _content(settings.get("unk_token", "<unk>"))
    made = _bpe(vocabulary, merges, fuse_unk=True, byte_fallback=True, unk_token=unknown)
    made.normalizer = normalizers.Replace(" ", SPACE)
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    made.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return made


_END = "<|endoftext|>"
_CLASSES = {
    "GPT2Tokenizer": _Kind(_gpt2, {"unk_token": _END, "bos_token": _END, "eos_token": _END}, True),
    "Qwen2Tokenizer": _Kind(
        _qwen2, {"unk_token": _END, "eos_token": _END, "pad_token": _END}, True
    ),
    "LlamaTokenizer": _Kind(
        _llama, {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}, False
    ),
    "GemmaTokenizer": _Kind(
        _gemma,
        {
            "unk_token": "<unk>",
            "bos_token": "<bos>",
            "eos_token": "<eos>",
            "pad_token": "<pad>",
            "mask_token": "<mask>",
        },
        False,
    ),
}
# Of models that name none.
_USUAL_CLASS = {
    "gpt2": "GPT2Tokenizer",
    "qwen2": "Qwen2Tokenizer",
    "qwen3": "Qwen2Tokenizer",
    "gemma2": "GemmaTokenizer",
    "gemma3_text": "GemmaTokenizer",
}


# -------------------------------------------------------------------------- added tokens


def _add_tokens(
    made: tokenizers.Tokenizer,
    files: SideFiles,
    known: _Kind | None,
    inside: list[dict[str, Any]],
    vocab_size: int,
) -> dict[str, str]:
    """Adds the tokens that files name; returns the special ones by their role.

    Args:
        made: to add them to.
        files: of the model.
        known: the class, which has special tokens of its own.
        inside: those of a `tokenizer.json`.
        vocab_size: V, of the model.
    """
    settings = files[SETTINGS]
    roles: dict[str, Any] = dict(known.special) if known else {}
    roles |= {
        role: settings[role]
        for role in settings
        if role.endswith("_token") and _is_token(settings.peek(role))
    }
    more = next((settings[key] for key in _MORE if settings.peek(key)), [])
    if settings.peek("added_tokens_decoder") is not None:
        settings.irrelevant({})
        added = _decoded(settings)
        for name in (SPECIAL_TOKENS, ADDED):
            if name in files:
                files[name].irrelevant(dict.fromkeys(files[name], f"{SETTINGS} says it"))
    else:
        named = files[SPECIAL_TOKENS]
        roles |= {role: named[role] for role in named if role not in _MORE}
        more = next((named[key] for key in _MORE if named.peek(key)), more)
        more = [_token(token, special=True) for token in _listed(more)]
        special = {_content(token) for token in [*roles.values(), *more]}
        added = _old_ones(files[ADDED], special)
        for token in inside:
            values = {key: value for key, value in token.items() if key != "id"}
            added[token["id"]] = _token(values, special=False)
    _add(made, added, roles, _listed(more), known, vocab_size)
    wrong = [(i, t.content) for i, t in added.items() if made.token_to_id(t.content) != i]
    if wrong:
        index, token = wrong[0]
        raise DataError(
            f"{settings.where.parent}: {token!r} is the token {index} of added_tokens_decoder or "
            f"{ADDED}, and would be {made.token_to_id(token)} behind the vocabulary: its ids have "
            f"holes, and which token has which cannot be told."
        )
    return {role: _content(token) for role, token in roles.items() if token is not None}


def _add(
    made: tokenizers.Tokenizer,
    added: Mapping[int, tokenizers.AddedToken],
    roles: Mapping[str, Any],
    more: list[Any],
    known: _Kind | None,
    vocab_size: int,
) -> None:
    """Adds tokens in the order of theirs: by id, then special ones by role, then others."""
    by_text = {token.content: token for token in added.values()}
    there = {token.content for token in made.get_added_tokens_decoder().values()} | by_text.keys()
    tokens = [token for _, token in sorted(added.items())]
    named = {_content(token) for token in roles.values() if token is not None}
    for token in tokens:
        token.special = token.special or token.content in named
    order = [*_ROLES, *(role for role in roles if role not in _ROLES)]
    for token in [*(roles.get(role) for role in order), *more]:
        if token is None or _content(token) in there:
            continue
        by_default = known is not None and token in known.special.values()
        if by_default and made.token_to_id(_content(token)) is None:
            # A class's own token, which no file names, is one only if the model has room for it.
            if _next_id(made) + len(tokens) >= vocab_size:
                continue
        there.add(_content(token))
        tokens.append(_token(token, special=True))
    made.add_tokens(tokens)


def _next_id(made: tokenizers.Tokenizer) -> int:
    return max(made.get_vocab().values(), default=-1) + 1


def _put_around(made: tokenizers.Tokenizer, settings: SideFile, special: dict[str, str]) -> None:
    """The token in front of a text, and the one behind it, where the settings ask for them."""
    parts, tokens = ["$A"], []
    if settings.get("add_bos_token") and "bos_token" in special:
        parts.insert(0, special["bos_token"])
        tokens.append(special["bos_token"])
    # What stands behind a text would end what is to be continued.
    settings.usual({"add_eos_token": False})
    if tokens:
        pairs = [(token, made.token_to_id(token)) for token in tokens]
        made.post_processor = processors.TemplateProcessing(single=parts, special_tokens=pairs)


def _is_token(value: Any) -> bool:
    return value is None or isinstance(value, str | dict)


def _content(token: Any) -> str:
    """The text of a token in any of the ways to write one."""
    if isinstance(token, dict):
        return str(token.get("content"))
    return token.content if isinstance(token, tokenizers.AddedToken) else str(token)


def _listed(tokens: Any) -> list[Any]:
    """Tokens that are in a list, or by their roles."""
    return list(tokens.values()) if isinstance(tokens, dict) else list(tokens or [])


def _token(token: Any, *, special: bool) -> tokenizers.AddedToken:
    """A token as the library has it.

    Raises:
        DataError: if it is none.
    """
    if isinstance(token, tokenizers.AddedToken):
        return token
    values = {"content": token} if isinstance(token, str) else dict(token)
    values.pop("__type", None)
    try:
        return tokenizers.AddedToken(**{"special": special, **values})
    except (TypeError, ValueError) as error:
        raise DataError(f"{token!r} is no token: {error}.") from None


def _decoded(settings: SideFile) -> dict[int, tokenizers.AddedToken]:
    """What `added_tokens_decoder` says: tokens by id."""
    content = settings["added_tokens_decoder"]
    if not isinstance(content, dict) or not all(
        index.isdigit() and isinstance(token, dict) for index, token in content.items()
    ):
        raise DataError(f"{settings.where}: added_tokens_decoder has no tokens by their ids.")
    return {int(index): _token(token, special=False) for index, token in content.items()}


def _old_ones(file: SideFile, special: set[str]) -> dict[int, tokenizers.AddedToken]:
    """What an `added_tokens.json` says: ids by token."""
    found = {}
    for token in file:
        index = file[token]
        if type(index) is not int or index < 0:
            raise DataError(f"{file.where}: {token!r} has the id {index!r}.")
        found[index] = tokenizers.AddedToken(
            token, normalized=token not in special, special=token in special
        )
    return found
