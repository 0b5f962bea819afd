"""Cuts texts into parts whose tokens, concatenated, are those of the whole text.

The library `tokenizers` gets long texts in parts, which its threads share and which take less
memory. A text is cut after a line feed between a word's or a sign's last character and a word's
first one. That no part of a tokenizer looks across such a place is not tested but derived from its
components in `tokenizer.json`:

* Normalizers change characters by themselves or with the marks behind them. They leave a line feed
  and what kind of characters stand beside it. (Whatever adds, strips or replaces does not.)
* Some component ends a split at such a place, whatever comes before and after: see
  `_SPLITS_THERE`. What comes before it in a sequence splits off characters that are no line feeds.
  What comes after it works on each split by itself.
* An added token has no line feed in it, and none that begins like a word takes the white space in
  front of it along.
* Nothing is added around texts, and nothing repeats them, unless special tokens are requested.

The model itself then sees the same splits. If one of these does not hold for a tokenizer, such as
BPE on whole texts (Llama 2, Gemma), it gets its texts whole.
"""

import itertools
import json
import re
from collections.abc import Iterator

import tokenizers

from transformer.types import Facts

# The approximate number of characters of a part.
PART = 1 << 16
# The place of a cut: signs, those of Chinese and Japanese among them, that no normalizer below
# makes white space of; and no characters that become white space or marks when taken apart.
_SIGNS = r"!-/:-@\[-`{-~\u2019\u201d\u2026\u3001\u3002\u300d\u300f\uff01\uff0c\uff1a\uff1b\uff1f"
_CUT = re.compile(rf"(?<=[\w{_SIGNS}])\n(?=[^\W\u037a\ufb50-\ufdff\ufe70-\ufeff\uff9e\uff9f])")

# Normalizers of single characters and their marks. A line feed stays what it is, a word's character
# becomes others of words, and none of the signs above becomes white space.
_NORMALIZERS = ("NFC", "NFD", "NFKC", "NFKD", "Lowercase")

# Regular expressions that published tokenizers split by. In each, a match that has a line feed goes
# no further than through white space behind it, of which there is none at a cut; and what is
# matched up to there does not depend on whether a word or the end of the text follows.
_CONTRACTIONS = r"'s|'t|'re|'ve|'m|'ll|'d"
_GPT2 = rf"{_CONTRACTIONS}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)"
_GPT4 = tuple(
    rf"(?i:{_CONTRACTIONS})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    for digits in (r"\p{N}{1,3}", r"\p{N}")
)
_EACH_CHARACTER = r"[\s\S]"
_SPLITS_THERE = frozenset((_GPT2, rf"{_GPT2}|\s+", *_GPT4, _EACH_CHARACTER))
# Pre-tokenizers that split off characters other than line feeds.
_SPLITS_OFF = frozenset(
    (r"\p{N}", r"\p{N}+", r"\p{N}{1,3}", "[0-9]", "[0-9][0-9][0-9]", r"[\p{P}\$\+<=>\^~\|]+")
)
# Pre-tokenizers that process each split separately, wherever it is in the text.
_SPACES = ("BertPreTokenizer", "Whitespace", "WhitespaceSplit")
_CHARACTERS = ("CharDelimiterSplit", "Digits", "FixedLength", "Punctuation", "UnicodeScripts")
_LOCAL = frozenset((*_SPACES, *_CHARACTERS, "ByteLevel", "Metaspace", "Split"))


def is_cuttable(library_tokenizer: tokenizers.Tokenizer) -> bool:
    """Whether the tokens of a text's `parts`, one after another, are those of the whole text."""
    content = json.loads(library_tokenizer.to_str())
    return (
        all(each["type"] in _NORMALIZERS for each in _flat(content["normalizer"], "normalizers"))
        and _splits_there(_flat(content["pre_tokenizer"], "pretokenizers"))
        and all(map(_adds_nothing, _flat(content["post_processor"], "processors")))
        and not any(_reaches_over(token, library_tokenizer) for token in content["added_tokens"])
    )


def parts(text: str) -> Iterator[str]:
    """A text in parts, cut at places where tokens of cuttable tokenizers end."""
    start = 0
    while start < len(text):
        cut = _CUT.search(text, start + PART)
        end = cut.end() if cut else len(text)
        yield text[start:end]
        start = end


def _flat(component: Facts | None, members: str) -> list[Facts]:
    """A component of a `tokenizer.json`, or the members of a sequence of them, in order."""
    if component is None:
        return []
    if component["type"] != "Sequence":
        return [component]
    return [each for member in component[members] for each in _flat(member, members)]


def _splits_there(pre_tokenizers: list[Facts]) -> bool:
    """Whether one of them ends a split at every cut, and the others neither prevent nor notice."""
    before = list(itertools.takewhile(_splits_off, pre_tokenizers))
    if len(before) == len(pre_tokenizers):
        return False
    splitter, *after = pre_tokenizers[len(before) :]
    kind = splitter["type"]
    if kind == "ByteLevel":
        ends = splitter["use_regex"] and not splitter["add_prefix_space"]
    elif kind == "Split":
        ends = _expression(splitter) in _SPLITS_THERE
    else:
        ends = kind in _SPACES
    # A component that puts something in front of a text would do so to every part.
    return ends and all(
        each["type"] in _LOCAL and each.get("prepend_scheme") != "first" for each in after
    )


def _splits_off(pre_tokenizer: Facts) -> bool:
    """Whether all that it does is to split off characters that are no line feeds."""
    return pre_tokenizer["type"] == "Digits" or (
        pre_tokenizer["type"] == "Split" and _expression(pre_tokenizer) in _SPLITS_OFF
    )


def _expression(split: Facts) -> str:
    """The regular expression whose matches become splits of their own; empty if they do not."""
    if split["behavior"] != "Isolated" or split["invert"]:
        return ""
    return split["pattern"].get("Regex", "")


def _adds_nothing(processor: Facts) -> bool:
    """Whether texts stay unchanged if no special tokens are requested."""
    if processor["type"] == "TemplateProcessing":
        return sum("Sequence" in piece for piece in processor["single"]) == 1
    return processor["type"] in ("ByteLevel", "BertProcessing", "RobertaProcessing")


def _reaches_over(token: Facts, library_tokenizer: tokenizers.Tokenizer) -> bool:
    """Whether an added token may hold a cut, or take the line feed in front of it along."""
    content, normalizer = token["content"], library_tokenizer.normalizer
    if token["normalized"] and normalizer is not None:
        # It is searched in the normalized text, where words may begin differently.
        return token["lstrip"] or "\n" in normalizer.normalize_str(content)
    return "\n" in content or (token["lstrip"] and re.match(r"\w", content) is not None)
