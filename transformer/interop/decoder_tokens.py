"""Tokens that published files add to a tokenizer's vocabulary, as `AutoTokenizer` adds them."""

from collections.abc import Mapping
from typing import Any

import tokenizers

from transformer.errors import DataError
from transformer.interop.side_files import SideFile, SideFiles

SETTINGS, SPECIAL_TOKENS, ADDED = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
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


def add_tokens(
    made: tokenizers.Tokenizer,
    files: SideFiles,
    defaults: Mapping[str, str],
    inside: list[dict[str, Any]],
    vocab_size: int,
) -> dict[str, str]:
    """Adds the tokens that files name; returns the special ones by their role.

    Args:
        made: to add them to.
        files: of the model.
        defaults: special tokens of its class by role, where no file says otherwise.
        inside: those of a `tokenizer.json`.
        vocab_size: V, of the model.
    """
    settings = files[SETTINGS]
    roles: dict[str, Any] = dict(defaults)
    roles |= {
        role: settings[role]
        for role in settings
        if role.endswith("_token") and _is_token(settings.peek(role))
    }
    more = next((settings[key] for key in _MORE if settings.peek(key)), [])
    if settings.peek("added_tokens_decoder") is not None:
        added = _decoded(settings)
        for name in (SPECIAL_TOKENS, ADDED):
            if name in files:
                files[name].irrelevant(dict.fromkeys(files[name], f"{SETTINGS} says it"))
    else:
        named = files[SPECIAL_TOKENS]
        roles |= {role: named[role] for role in named if role not in _MORE}
        # Under the old name they count only where the settings have none under either.
        if "extra_special_tokens" in named:
            more = [*_listed(more), *_listed(named["extra_special_tokens"])]
        elif not any(key in settings for key in _MORE):
            more = named.get("additional_special_tokens", [])
        more = _listed(more)
        more = [_token(token, special=True) for token in more]
        special = {content_of(token) for token in [*roles.values(), *more]}
        added = _old_ones(files[ADDED], special)
        for token in inside:
            values = {key: value for key, value in token.items() if key != "id"}
            added[token["id"]] = _token(values, special=False)
    _add(made, added, roles, _listed(more), defaults, vocab_size)
    wrong = [(i, t.content) for i, t in added.items() if made.token_to_id(t.content) != i]
    if wrong:
        index, token = wrong[0]
        raise DataError(
            f"{settings.where.parent}: {token!r} is the token {index} of added_tokens_decoder or "
            f"{ADDED}, and would be {made.token_to_id(token)} behind the vocabulary: its ids have "
            f"holes, and which token has which cannot be told."
        )
    return {role: content_of(token) for role, token in roles.items() if token is not None}


def _add(
    made: tokenizers.Tokenizer,
    added: Mapping[int, tokenizers.AddedToken],
    roles: Mapping[str, Any],
    more: list[Any],
    defaults: Mapping[str, str],
    vocab_size: int,
) -> None:
    """Adds tokens in the order of theirs: by id, then special ones by role, then others."""
    by_text = {token.content: token for token in added.values()}
    there = {token.content for token in made.get_added_tokens_decoder().values()} | by_text.keys()
    tokens = [token for _, token in sorted(added.items())]
    named = {content_of(token) for token in roles.values() if token is not None}
    for token in tokens:
        token.special = token.special or token.content in named
    order = [*_ROLES, *(role for role in roles if role not in _ROLES)]
    for token in [*(roles.get(role) for role in order), *more]:
        if token is None or content_of(token) in there:
            continue
        by_default = token in defaults.values()
        known_text = made.token_to_id(content_of(token)) is not None
        # A class's own token, which no file names, is one only if the model has room for it.
        if by_default and not known_text and _next_id(made) + len(tokens) >= vocab_size:
            continue
        there.add(content_of(token))
        tokens.append(_token(token, special=True))
    made.add_tokens(tokens)


def _next_id(made: tokenizers.Tokenizer) -> int:
    return max(made.get_vocab().values(), default=-1) + 1


def _is_token(value: Any) -> bool:
    return value is None or isinstance(value, str | dict)


def content_of(token: Any) -> str:
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
