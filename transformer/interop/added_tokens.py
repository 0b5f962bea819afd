"""Special and added tokens of a published tokenizer, of which up to four files tell.

The order of things is that of `transformers`: what `tokenizer_config.json` says in
`added_tokens_decoder` is all there is; without it the older files are read,
`special_tokens_map.json` and `added_tokens.json`, and what `tokenizer.json` has added.
"""

from typing import Any, NamedTuple

import tokenizers

from transformer.data.tokenizers import TOKENIZER_FILE
from transformer.errors import DataError
from transformer.interop.side_files import SideFile, SideFiles

SETTINGS, SPECIAL, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
# In the order in which those that a vocabulary lacks are added.
_NAMED = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
_DECODER, _MORE, _MORE_BEFORE = (
    "added_tokens_decoder",
    "extra_special_tokens",
    "additional_special_tokens",
)
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


class Names(NamedTuple):
    """Tokens that a tokenizer is to have.

    Attributes:
        named: special tokens by what they are for, as `cls_token`; None for "there is none".
        more: further special tokens.
        added: all that are known with their flags, in the order in which they are added.
    """

    named: dict[str, str | None]
    more: list[Any]
    added: list[tokenizers.AddedToken]


def read_names(files: SideFiles, usual: dict[str, str]) -> Names:
    """What the files say.

    Args:
        files: of the folder.
        usual: names of special tokens where nothing is said, by what they are for.

    Raises:
        DataError: if a token is none.
    """
    settings = files[SETTINGS]
    said: dict[str, Any] = {key: settings[key] for key in settings if _is_name(settings, key)}
    more = _more(settings)
    by_id: dict[int, Any] = {}
    if _DECODER in settings:
        by_id = {int(place): token for place, token in (settings[_DECODER] or {}).items()}
        for name in (SPECIAL, ADDED):
            files[name].irrelevant(dict.fromkeys(files[name], f"{SETTINGS} says it"))
        files[TOKENIZER_FILE].irrelevant({"added_tokens": f"{SETTINGS} says it"})
    else:
        special = files[SPECIAL]
        said |= {key: special[key] for key in special if _is_name(special, key)}
        known = {_content(token, settings) for token in [*said.values(), *more] if token}
        more = _more(special) + [token for token in more if token not in _more(special)]
        for content, place in ((key, files[ADDED][key]) for key in files[ADDED]):
            is_special = content in known
            flags = {"normalized": not is_special, "special": is_special}
            by_id[int(place)] = {"content": content, **flags}
        for token in files[TOKENIZER_FILE].get("added_tokens") or []:
            by_id[int(token["id"])] = token
    added = {place: _token(token, settings) for place, token in sorted(by_id.items())}
    flags = {token.content: token for token in added.values()}
    named: dict[str, str | None] = dict.fromkeys(_NAMED)
    named |= usual
    for key, token in said.items():
        named[key] = None if token is None else _content(token, settings)
        if token is not None and not isinstance(token, str):
            flags.setdefault(named[key], _token(token, settings, special=True))
    tokens = list(added.values())
    there = {token.content for token in tokens}
    for name in named.values():
        if name is not None and name not in there:
            tokens.append(flags.get(name, tokenizers.AddedToken(name, special=True)))
            there.add(name)
    return Names(named, more, tokens)


def add_tokens(library_tokenizer: tokenizers.Tokenizer, names: Names) -> None:
    """Adds the tokens to a tokenizer; those that it has keep their ids."""
    special = set(names.named.values())
    tokens = []
    for token in names.added:
        token.special = token.special or token.content in special
        tokens.append(token)
    there = {token.content for token in tokens}
    there |= {t.content for t in library_tokenizer.get_added_tokens_decoder().values()}
    for token in names.more:
        found = _token(token, None, special=True)
        if found.content not in there:
            tokens.append(found)
    library_tokenizer.add_tokens(tokens)


def _is_name(file: SideFile, key: str) -> bool:
    """Whether a key names a special token; asks for it if so."""
    return key.endswith("_token") and (key in _NAMED or isinstance(file[key], str))


def _more(file: SideFile) -> list[Any]:
    """Further special tokens."""
    found = file.get(_MORE) or file.get(_MORE_BEFORE) or []
    if isinstance(found, dict):
        found = list(found.values())
    if not isinstance(found, list):
        raise DataError(f"{file.where}: {_MORE} is {found!r}, where a list is expected.")
    return found


def _content(token: Any, file: SideFile) -> str:
    found = token.get("content") if isinstance(token, dict) else token
    if not isinstance(found, str):
        raise DataError(f"{file.where} has {token!r} where a token is expected.")
    return found


def _token(token: Any, file: SideFile | None, *, special: bool = False) -> tokenizers.AddedToken:
    """A token as the library knows it."""
    if isinstance(token, str):
        return tokenizers.AddedToken(token, special=special)
    if not isinstance(token, dict) or not isinstance(token.get("content"), str):
        where = "" if file is None else f"{file.where}: "
        raise DataError(f"{where}{token!r} is no added token.")
    flags = {key: token[key] for key in _FLAGS if key in token}
    return tokenizers.AddedToken(token["content"], **({"special": True} if special else {}) | flags)
