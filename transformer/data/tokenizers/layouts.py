"""How an encoder's tokenizer puts special tokens around one text or two."""

import json
from typing import NamedTuple

import tokenizers
from tokenizers import processors

from transformer.types import Json

Processor = processors.PostProcessor


class Layout(NamedTuple):
    """`start A separator`, and `start A separator ... separator B separator`.

    Attributes:
        start: the first token of every row.
        separator: ends each text.
        separators: how many stand between two texts.
        second_type: token type of the second text and the separator after it; all others are 0.
    """

    start: str
    separator: str
    separators: int
    second_type: int


def layout_of(library_tokenizer: tokenizers.Tokenizer) -> Layout | None:
    """The layout of a tokenizer's post-processor; None if it has none, or another format."""
    processor = library_tokenizer.post_processor
    if processor is None:
        return None
    # Only this part of the tokenizer, and not its vocabulary, as text.
    return _layout(json.loads(processor.__getstate__()))


def _layout(content: Json) -> Layout | None:
    kind = content["type"]
    if kind == "Sequence":
        # Processors that only change offsets do not change tokens.
        rest = [part for part in content["processors"] if part["type"] != "ByteLevel"]
        return _layout(rest[0]) if len(rest) == 1 else None
    if kind in ("BertProcessing", "RobertaProcessing"):
        is_bert = kind == "BertProcessing"
        counts = (1, 1) if is_bert else (2, 0)
        return Layout(content["cls"][0], content["sep"][0], *counts)
    return _of_template(content) if kind == "TemplateProcessing" else None


def _of_template(content: Json) -> Layout | None:
    """The layout of a template, if it is one of these."""
    tokens = content["special_tokens"]
    single, pair = (_parts(content[name], tokens) for name in ("single", "pair"))
    if single is None or pair is None or len(single) != 3 or len(pair) < 5:
        return None
    (start, _), (text, _), (separator, _) = single
    layout = Layout(start, separator, len(pair) - 4, pair[-1][1])
    return layout if (text, single, pair) == ("$A", *_expected(layout)) else None


def _parts(parts: list[Json], tokens: Json) -> list[tuple[str, int]] | None:
    """Each part of a template and its type; None if a special token is not just one token."""
    found = []
    for part in parts:
        ((kind, value),) = part.items()
        name = value["id"]
        if kind == "SpecialToken":
            if len(tokens[name]["tokens"]) != 1:
                return None
            name = tokens[name]["tokens"][0]
        else:
            name = f"${name}"
        found.append((name, value["type_id"]))
    return found


def _expected(layout: Layout) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """The parts of one text and of two."""
    start, end = (layout.start, 0), (layout.separator, 0)
    between = [end] * layout.separators
    second = [("$B", layout.second_type), (layout.separator, layout.second_type)]
    return [start, ("$A", 0), end], [start, ("$A", 0), *between, *second]


def template(layout: Layout, vocabulary: dict[str, int]) -> processors.TemplateProcessing:
    """A post-processor that makes a layout.

    Args:
        layout: what to make.
        vocabulary: has the special tokens.
    """
    single, pair = ([f"{name}:{kind}" for name, kind in part] for part in _expected(layout))
    tokens = dict.fromkeys((layout.start, layout.separator))
    return processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[(name, vocabulary[name]) for name in tokens]
    )
