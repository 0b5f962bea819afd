"""Tokens that side files add to a tokenizer, as the library `transformers` reads them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import tokenizers

from transformer.errors import DataError
from transformer.interop.side_files import SideFile, SideFiles

SETTINGS = "tokenizer_config.json"
SPECIAL = "special_tokens_map.json"
ADDED = "added_tokens.json"
# Tokens with a name of their own, in the order in which they are added.
NAMED = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
# Settings that change no number of any token, and why.
IRRELEVANT = {
    "added_tokens_decoder": "its tokens were added",
    "backend": "who wrote it",
    "chat_template": "there are no chats",
    "errors": "of other tokenizers",
    "is_local": "where it came from",
    "legacy": "the present library ignores it",
    "local_files_only": "where it came from",
    "model_input_names": "what else is returned",
    "name_or_path": "where it came from",
    "processor_class": "of other models",
    "special_tokens_map_file": "where it came from",
    "tokenizer_file": "where it came from",
    "unk_id": "numbers are in the tokenizer",
    "add_bos_token": "the tokens around texts are fixed",
    "add_eos_token": "the tokens around texts are fixed",
}
# The same where they have these values, which are the usual ones.
USUAL = {
    "add_prefix_space": False,
    "clean_up_tokenization_spaces": False,
    "do_lower_case": False,
    # Where positions are counted, padding before a text moves it.
    "padding_side": "right",
    "sp_model_kwargs": {},
    "split_special_tokens": False,
    "truncation_side": "right",
}


class AddedTokens(NamedTuple):
    """What side files say of tokens.

    Attributes:
        numbered: those with a number, by number.
        named: by name, such as `eos`; those that no file names are missing.
        extra: further special tokens; None where no file says anything of them.
        additional: the same by an older name, which some tokenizers treat otherwise.
    """

    numbered: dict[int, tokenizers.AddedToken]
    named: dict[str, tokenizers.AddedToken]
    extra: list[tokenizers.AddedToken] | None
    additional: list[tokenizers.AddedToken] | None

    def add_to(self, library_tokenizer: tokenizers.Tokenizer) -> None:
        """Adds what a tokenizer has not, with the numbers that follow its own."""
        known = {str(token) for token in library_tokenizer.get_added_tokens_decoder().values()}
        names = {token.content for token in self.named.values()}
        found: list[tokenizers.AddedToken] = []
        for _, token in sorted(self.numbered.items()):
            if token.content in names:
                token.special = True
            found.append(token)
        known |= {token.content for token in found}
        named = [self.named[name] for name in NAMED if name in self.named]
        for token in [*named, *(self.extra or [])]:
            if token.content not in known:
                found.append(token)
                known.add(token.content)
        library_tokenizer.add_tokens(found)


def read_added_tokens(files: SideFiles, in_tokenizer: list[dict[str, Any]]) -> AddedTokens:
    """What side files add to a tokenizer.

    Args:
        files: beside the model.
        in_tokenizer: the `added_tokens` of a `tokenizer.json`, used where nothing else says.

    Raises:
        DataError: if a token is none.
    """
    settings, special, added = files[SETTINGS], files[SPECIAL], files[ADDED]
    settings.irrelevant(IRRELEVANT)
    given: dict[str, Any] = {f"{name}_token": settings.get(f"{name}_token") for name in NAMED}
    extra, additional = (settings.get(f"{what}_special_tokens") for what in ("extra", "additional"))
    if isinstance(extra, Mapping):
        raise DataError(
            f"{settings.where} has extra_special_tokens with names of their own: only a list of "
            f"tokens can be read here."
        )
    if not extra and additional is not None:
        extra, additional = additional, None
    numbered: dict[int, tokenizers.AddedToken] = {}
    if settings.get("added_tokens_decoder") is not None:
        for number, token in settings["added_tokens_decoder"].items():
            numbered[int(number)] = as_token(token, settings)
        # Neither file is looked at where the tokens are in the settings.
        special.irrelevant(dict.fromkeys(special, "added_tokens_decoder says it"))
        added.irrelevant(dict.fromkeys(added, "added_tokens_decoder says it"))
    else:
        given |= {key: special[key] for key in given if key in special}
        if "extra_special_tokens" in special:
            extra = [*(extra or []), *special["extra_special_tokens"]]
        additional = special.get("additional_special_tokens", additional)
        names = {_content(token, settings) for token in given.values() if token is not None}
        names |= {_content(token, settings) for token in extra or []}
        for content in added:
            plain = content not in names
            numbered[int(added[content])] = tokenizers.AddedToken(
                content, normalized=plain, special=not plain
            )
        for token in in_tokenizer:
            numbered[int(token["id"])] = as_token(token, settings)
    by_content = {token.content: token for token in numbered.values()}
    named = {
        key.removesuffix("_token"): by_content.get(
            _content(token, settings), as_token(token, settings, special=True)
        )
        for key, token in given.items()
        if token is not None
    }
    extra, additional = (
        None if tokens is None else [as_token(token, settings, special=True) for token in tokens]
        for tokens in (extra, additional)
    )
    return AddedTokens(numbered, named, extra, additional)


def as_token(token: Any, where: SideFile, *, special: bool | None = None) -> tokenizers.AddedToken:
    """A token as a file has it: its letters, or an object with them.

    Raises:
        DataError: if it is none.
    """
    content = _content(token, where)
    if isinstance(token, str):
        return tokenizers.AddedToken(content, special=bool(special), normalized=not special)
    flags = {
        flag: bool(token[flag])
        for flag in ("single_word", "lstrip", "rstrip", "normalized")
        if flag in token
    }
    is_special = bool(token.get("special", False)) if special is None else special
    flags.setdefault("normalized", not is_special)
    return tokenizers.AddedToken(content, special=is_special, **flags)


def _content(token: Any, where: SideFile) -> str:
    content = token.get("content") if isinstance(token, Mapping) else token
    if not isinstance(content, str):
        raise DataError(f"{where.where} has {token!r} where a token is expected.")
    return content
