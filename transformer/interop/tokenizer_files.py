"""Tokenizers that lie beside published models, as text of a `tokenizer.json`."""

import tokenizers
from tokenizers import processors

from transformer.errors import DataError


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
