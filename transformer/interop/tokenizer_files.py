"""Tokenizers that lie beside published models, as text of a `tokenizer.json`."""

from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

from transformer.data.text import read_text
from transformer.errors import DataError
from transformer.interop.side_files import read_json


def read_tokenizer_text(folder: Path) -> str:
    """The text of a `tokenizer.json`, or one made of GPT-2's `vocab.json` and `merges.txt`.

    Raises:
        DataError: if there is neither.
    """
    if (folder / "tokenizer.json").is_file():
        return read_text(str(folder / "tokenizer.json"))
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    if not (vocabulary.is_file() and merges.is_file()):
        raise DataError(
            f"{folder} has no tokenizer: expected a tokenizer.json, or vocab.json and merges.txt. "
            f"Give another with --tokenizer=tokenizer.json."
        )
    try:
        model = models.BPE.from_file(str(vocabulary), str(merges))
    except Exception as error:  # The library raises bare Exception on malformed files.
        raise DataError(f"{vocabulary} and {merges} are no tokenizer: {error}") from None
    library_tokenizer = tokenizers.Tokenizer(model)
    settings = folder / "tokenizer_config.json"
    spaced = read_json(settings).get("add_prefix_space", False) if settings.is_file() else False
    library_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=spaced is True)
    library_tokenizer.decoder = decoders.ByteLevel()
    return library_tokenizer.to_str(pretty=True)


def with_end(text: str, end: int) -> str:
    """A tokenizer that puts a token behind every text, where special tokens are asked for.

    Args:
        text: of a `tokenizer.json`; one that puts tokens around texts already is left as it is.
        end: the token.
    """
    library_tokenizer = tokenizers.Tokenizer.from_str(text)
    if library_tokenizer.post_processor is not None:
        return text
    token = str(library_tokenizer.id_to_token(end))
    library_tokenizer.post_processor = processors.TemplateProcessing(
        single=["$A", token], pair=["$A", token, "$B", token], special_tokens=[(token, end)]
    )
    return library_tokenizer.to_str(pretty=True)


def with_beginning(text: str, beginning: int | None) -> str:
    """A tokenizer that puts a token in front of every text, where special tokens are asked for.

    Args:
        text: of a `tokenizer.json`.
        beginning: the token; None leaves the tokenizer as it is.
    """
    if beginning is None:
        return text
    library_tokenizer = tokenizers.Tokenizer.from_str(text)
    token = library_tokenizer.id_to_token(beginning)
    if token is None:
        raise DataError(f"the tokenizer has no token {beginning}, which was to begin all texts.")
    library_tokenizer.post_processor = processors.TemplateProcessing(
        single=[token, "$A"], special_tokens=[(token, beginning)]
    )
    return library_tokenizer.to_str(pretty=True)
