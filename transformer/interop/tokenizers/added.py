"""Special and added tokens of a published tokenizer, defined in up to four files.

They are read and added to a tokenizer in the order of `AutoTokenizer` of the library
`transformers`: `added_tokens_decoder` in `tokenizer_config.json` defines all of them; without it,
the older files `special_tokens_map.json` and `added_tokens.json` and the added tokens of a
`tokenizer.json` are read. Default special tokens differ between tokenizer classes, so callers pass
them.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import tokenizers

from transformer.data.reading import bounds
from transformer.data.reading.json_text import shown
from transformer.data.tokenizers.protocol import TOKENIZER_FILE
from transformer.errors import DataError
from transformer.interop.checked_values import refuse
from transformer.interop.checked_values import token as token_id
from transformer.interop.side_files import ADDED, SETTINGS, SPECIAL, SideFile, SideFiles

BY_ID = "added_tokens_decoder"
_FURTHER, _ADDITIONAL = "extra_special_tokens", "additional_special_tokens"
# In the order in which they are added, before tokens with other names.
_ROLES = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


# A message names at most so many tokens.
_SHOWN = 5


class AddedTokens(NamedTuple):
    """The special and added tokens in the files.

    Attributes:
        by_id: tokens with an id.
        by_role: special tokens by role, such as `cls_token`; None means that there is none.
        further: special tokens without a role; None if no file mentions any.
        additional: the same under an older name, used if there are no `further` ones.
    """

    by_id: dict[int, tokenizers.AddedToken]
    by_role: dict[str, tokenizers.AddedToken | None]
    further: list[tokenizers.AddedToken] | None
    additional: list[tokenizers.AddedToken] | None

    @property
    def without_role(self) -> list[tokenizers.AddedToken]:
        """The effective special tokens without a role."""
        return (self.additional if self.further is None else self.further) or []

    def names(self, usual: Mapping[str, str]) -> dict[str, str]:
        """The special tokens by role, in the order in which they are added.

        Args:
            usual: defaults of the tokenizer's class for roles that no file mentions.
        """
        said = {role: token and token.content for role, token in self.by_role.items()}
        names = {**dict.fromkeys(_ROLES), **usual, **said}
        return {role: name for role, name in names.items() if name is not None}

    def add_to(
        self, made: tokenizers.Tokenizer, usual: Mapping[str, str], room: int = sys.maxsize
    ) -> None:
        """Adds all tokens; existing ones keep their ids, the others get the next free ids.

        Args:
            made: the tokenizer to extend.
            usual: defaults of its class, by role, for roles that no file mentions.
            room: the number of tokens of the model; default tokens beyond it are left out.
        """
        names = self.names(usual)
        found = [token for _, token in sorted(self.by_id.items())]
        there = {token.content for token in found}
        there |= {token.content for token in made.get_added_tokens_decoder().values()}
        vocabulary = made.get_vocab()
        for role, name in names.items():
            if name in there:
                continue
            new = {token.content for token in found} - vocabulary.keys()
            fits = name in vocabulary or len(vocabulary) + len(new) < room
            if role in self.by_role or fits:
                found.append(self.by_role.get(role) or tokenizers.AddedToken(name, special=True))
                there.add(name)
        for token in self.without_role:
            if token.content not in there:
                found.append(token)
                there.add(token.content)
        special = set(names.values())
        for token in found:
            token.special = token.special or token.content in special
        made.add_tokens(found)

    def require_ids(self, made: tokenizers.Tokenizer, folder: Path) -> None:
        """Refuses a tokenizer whose ids differ from the files.

        The library `transformers` silently renumbers such tokens, so that a model would read wrong
        rows of its table.

        Args:
            made: the tokenizer with added tokens.
            folder: the folder of the files, for messages.

        Raises:
            DataError: names the first such tokens.
        """
        moved = [
            f"{token.content!r} has the id {index} and gets {made.token_to_id(token.content)}"
            for index, token in sorted(self.by_id.items())
            if made.token_to_id(token.content) != index
        ]
        if moved:
            more = f", and so on ({len(moved)} tokens)" if len(moved) > _SHOWN else ""
            raise DataError(
                f"{folder}: by {BY_ID}, {ADDED} or {TOKENIZER_FILE} {', '.join(moved[:_SHOWN])}"
                f"{more}: ids behind the vocabulary may have no holes, and no other token may have "
                f"them."
            )


def read_added_tokens(files: SideFiles, described: Mapping[str, object]) -> AddedTokens:
    """Reads special and added tokens from the files.

    Args:
        files: the side files of the folder.
        described: the `tokenizer.json` that the tokenizer is made from; empty if there is none.

    Raises:
        DataError: if a token is none.
    """
    settings, special = files[SETTINGS], files[SPECIAL]
    by_role = _by_role(settings)
    further, additional = (_listed(settings, key) for key in (_FURTHER, _ADDITIONAL))
    if additional is not None and not further:
        further, additional = additional, None
    if isinstance(further, dict):
        by_role, further = by_role | further, None
    if settings.get(BY_ID) is not None:
        by_id = _by_id(settings)
        for name in (SPECIAL, ADDED):
            files[name].irrelevant(dict.fromkeys(files[name], f"{SETTINGS} says it"))
    else:
        by_role |= _by_role(special, special=True)
        more = _listed(special, _FURTHER, special=True)
        if isinstance(more, dict):
            by_role, further = by_role | more, None
        elif more is not None:
            further = [*(further or []), *more]
        if isinstance(special.peek(_ADDITIONAL), dict):
            refuse(special.where, _ADDITIONAL, special[_ADDITIONAL], "a list")
        if _ADDITIONAL in special:
            additional = _listed(special, _ADDITIONAL, special=True)
        roles = (by_role.get(role) for role in _ROLES)
        known = {token.content for token in [*roles, *(further or [])] if token is not None}
        old, new = _of_old_file(files[ADDED], known), _described(described, settings)
        _require_same_ids(files[ADDED], old, new)
        by_id = old | new
    if isinstance(additional, dict):
        raise DataError(
            f"{settings.where.parent}: {_ADDITIONAL} has names, where a list is expected."
        )
    return AddedTokens(by_id, by_role, further, additional)


def _require_same_ids(
    file: SideFile,
    old: Mapping[int, tokenizers.AddedToken],
    new: Mapping[int, tokenizers.AddedToken],
) -> None:
    """Refuses a token whose id in its file is another in `tokenizer.json`, or another token's.

    Raises:
        DataError: names the token.
    """
    ids = {token.content: index for index, token in new.items()}
    for index, token in old.items():
        if ids.get(token.content, index) != index:
            raise DataError(
                f"{file.where}: {shown(token.content)} has the id {index}, and in tokenizer.json "
                f"{ids[token.content]}."
            )
        if index in new and new[index].content != token.content:
            raise DataError(
                f"{file.where}: {shown(token.content)} has the id {index}, which is that of "
                f"{shown(new[index].content)} in tokenizer.json."
            )


def _by_role(file: SideFile, *, special: bool = False) -> dict[str, tokenizers.AddedToken | None]:
    """The tokens of a file by role; other keys with the same ending are ignored.

    Raises:
        DataError: if the value of a known role is not a token.
    """
    return {
        role: None if file[role] is None else _token(file[role], file, special=special)
        for role in file
        if role in _ROLES or (role.endswith("_token") and isinstance(file.peek(role), str | dict))
    }


def _listed(
    file: SideFile, key: str, *, special: bool = False
) -> list[tokenizers.AddedToken] | dict[str, tokenizers.AddedToken | None] | None:
    """The tokens in a list, or in an object with names; None without the key.

    Raises:
        DataError: if there is something else.
    """
    if key not in file:
        return None
    found = [] if file[key] in (None, {}) else file[key]
    if isinstance(found, dict):
        return {name: _token(token, file, special=special) for name, token in found.items()}
    if not isinstance(found, list):
        refuse(file.where, key, found, "a list")
    return [_token(token, file, special=special) for token in found]


def _by_id(settings: SideFile) -> dict[int, tokenizers.AddedToken]:
    """The tokens in `added_tokens_decoder`, by id."""
    content = settings[BY_ID]
    if not isinstance(content, dict) or not all(
        index.isdecimal() and len(index) <= bounds.DIGITS and isinstance(token, dict)
        for index, token in content.items()
    ):
        raise DataError(f"{settings.where}: {BY_ID} has no tokens by their ids.")
    return {
        token_id(settings.where, BY_ID, int(index)): _token(token, settings)
        for index, token in content.items()
    }


def _of_old_file(file: SideFile, special: set[str]) -> dict[int, tokenizers.AddedToken]:
    """The tokens in an `added_tokens.json`, by id."""
    found = {}
    for name in file:
        index = file.token(name)
        if not name:
            raise DataError(f"{file.where}: the token {index} has no letters.")
        plain = name not in special
        found[index] = tokenizers.AddedToken(name, normalized=plain, special=not plain)
    return found


def _described(
    described: Mapping[str, object], settings: SideFile
) -> dict[int, tokenizers.AddedToken]:
    """The added tokens in a `tokenizer.json`."""
    found = {}
    tokens = described.get("added_tokens") or []
    if not isinstance(tokens, list):
        refuse(settings.where.parent / TOKENIZER_FILE, "added_tokens", tokens, "a list")
    for token in tokens:
        if not isinstance(token, dict) or type(token.get("id")) is not int:
            where = settings.where.parent / TOKENIZER_FILE
            raise DataError(f"{where}: {shown(token)} of its added_tokens has no id.")
        found[token["id"]] = _token(token, settings)
    return found


def _token(token: object, file: SideFile, *, special: bool = False) -> tokenizers.AddedToken:
    """A token of a file: a string, which makes a special token, or an object with its content.

    Args:
        token: the value in the file.
        file: the file, for messages.
        special: whether an object makes a special token in any case.

    Raises:
        DataError: if it is none.
    """
    values = {"content": token, "special": True} if isinstance(token, str) else token
    if not isinstance(values, dict) or not isinstance(values.get("content"), str):
        raise DataError(f"{file.where}: {shown(token)} is no token.")
    if not values["content"]:
        # The library `transformers` would take it for the unknown token, or never return.
        raise DataError(
            f"{file.where}: {shown(token)} is a token without letters: null says that there "
            f"is none."
        )
    flags = {flag: values[flag] for flag in _FLAGS if flag in values}
    if special:
        flags["special"] = True
    try:
        return tokenizers.AddedToken(values["content"], **flags)
    except TypeError as error:
        raise DataError(f"{file.where}: {shown(token)} is no token: {error}.") from None
