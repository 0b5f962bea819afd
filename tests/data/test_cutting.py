"""Parts of a text have the tokens of the whole, whatever the tokenizer is made of."""

import itertools
import re
import unicodedata
from unittest import mock

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, normalizers, pre_tokenizers, processors

from transformer.data.tokenizers import cutting
from transformer.data.tokenizers.library import byte_alphabet, character_tokenizer
from transformer.data.tokenizers.text import LibraryTextTokenizer

# What texts are made of: whatever a tokenizer may treat in a way of its own, next to line feeds.
PARTS = ["\n", "\n", "\n", "\n\n", " ", "  ", "\t", "\r", "\u3000", "\u2028", "\x85", "\xa0"]
PARTS += ["word", "it's", "ab", "a", "B", "b", "12", "3456", "...", ".", "!/", "(", "_", "-"]
PARTS += [
    "ü",
    "u\u0308",
    "\u0301",
    "天地",
    "。",
    "ﬁ",
    "⑴",
    "½",
    "ﱞ",
    "\u037a",
    "\uff9e",
    "İ",
    "Σ",
    "👍",
]
PARTS += ["<tag>", "TAG", "</s>", "<a b>", "▁", "<line\nfeed>", "👍"]
# Of few parts each, so that any two are likely to meet.
TEXTS = (
    st.lists(st.sampled_from(PARTS), min_size=1, max_size=4)
    .flatmap(lambda few: st.lists(st.sampled_from(["\n", *few]), max_size=20))
    .map("".join)
)

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def split(expression, behavior="isolated"):
    return pre_tokenizers.Split(tokenizers.Regex(expression), behavior)


def byte_level(spaced=False, use_regex=True):
    return pre_tokenizers.ByteLevel(add_prefix_space=spaced, use_regex=use_regex)


def in_order(*members):
    return pre_tokenizers.Sequence(list(members))


def bpe(of_bytes=True):
    """Pieces that join across spaces and line feeds wherever nothing keeps them apart."""
    if of_bytes:
        alphabet, space, feed = byte_alphabet(), "Ġ", "Ċ"
    else:
        alphabet, space, feed = sorted(set("".join(PARTS)) | set("▁ \n")), "▁", "\n"
    pairs = [("a", "b"), (feed, "a"), ("a", feed), (space, "a"), (feed, feed), ("w", "o")]
    pairs += [(f"a{feed}", "a"), (space, space), (f"{feed}a", "b"), (".", feed), (feed, space)]
    tokens = dict.fromkeys([*alphabet, *map("".join, pairs)])
    return models.BPE({token: index for index, token in enumerate(tokens)}, pairs)


# Pre-tokenizers, and whether texts may be cut with them. Other components say so too.
SPLITTERS = {
    "bytes": (byte_level(), True),
    "bytes, a space in front": (byte_level(spaced=True), False),
    "bytes, not split": (byte_level(use_regex=False), False),
    "Llama 3": (in_order(split(LLAMA3), byte_level(use_regex=False)), True),
    "Qwen": (in_order(split(LLAMA3.replace("{1,3}", "")), byte_level(use_regex=False)), True),
    "SmolLM": (in_order(pre_tokenizers.Digits(individual_digits=True), byte_level()), True),
    "digits, GPT-2": (in_order(split(r"\p{N}"), split(GPT2), byte_level(False, False)), True),
    "split, then spaces in front": (in_order(split(GPT2), byte_level(True, False)), True),
    "a split elsewhere": (in_order(split("[.]"), byte_level(use_regex=False)), False),
    "GPT-2, merged": (in_order(split(GPT2, "merged_with_next"), byte_level(False, False)), False),
    "nested": (in_order(in_order(split(r"\p{N}"), byte_level()), split("[a-z]")), True),
}
OF_CHARACTERS = {
    "none": (None, False),
    "metaspace": (pre_tokenizers.Metaspace(), False),
    "words": (pre_tokenizers.WhitespaceSplit(), True),
    "words, metaspace": (in_order(pre_tokenizers.Whitespace(), pre_tokenizers.Metaspace()), True),
    "words, first": (
        in_order(
            pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="first")
        ),
        False,
    ),
    "BERT": (pre_tokenizers.BertPreTokenizer(), True),
    "punctuation": (pre_tokenizers.Punctuation(), False),
}
NORMALIZERS = {
    "none": (None, True),
    "NFC": (normalizers.NFC(), True),
    "NFKC, lower": (normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]), True),
    "NFD": (normalizers.NFD(), True),
    "prepend": (normalizers.Prepend("▁"), False),
    "strip": (normalizers.Strip(), False),
    "accents": (
        normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents()]),
        False,
    ),
    "replace": (normalizers.Replace(tokenizers.Regex(r"\n(?=[ab])"), " "), False),
    "llama": (
        normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
        False,
    ),
    "Nmt": (normalizers.Nmt(), False),
    "BERT": (normalizers.BertNormalizer(), False),
}
ADDED = {
    "none": ([], True),
    "special": ([("</s>", {"special": True, "normalized": False})], True),
    "rstrip": ([("<tag>", {"rstrip": True}), ("TAG", {"single_word": True})], True),
    "lstrip": ([("<tag>", {"lstrip": True, "normalized": False})], True),
    "lstrip of a word": ([("word", {"lstrip": True, "normalized": False})], False),
    "lstrip, normalized": ([("(", {"lstrip": True, "normalized": True})], None),
    "with a feed": ([("<line\nfeed>", {"normalized": False})], False),
    "with a space": ([("<a b>", {"single_word": True, "rstrip": True, "lstrip": True})], None),
}
TEMPLATE = [("</s>", 0)]
PROCESSORS = {
    "none": (None, True),
    "bytes": (processors.ByteLevel(trim_offsets=True), True),
    "template": (
        processors.TemplateProcessing(single="</s> $A </s>", special_tokens=TEMPLATE),
        True,
    ),
    "RoBERTa": (processors.RobertaProcessing(("</s>", 0), ("</s>", 0)), True),
}


def made(splitter, normalizer, added, processor, *, of_bytes=True):
    """A tokenizer of components by their names, and whether texts may be cut with it."""
    kinds = SPLITTERS if of_bytes else OF_CHARACTERS
    library = tokenizers.Tokenizer(bpe(of_bytes))
    chosen = (kinds[splitter], NORMALIZERS[normalizer], ADDED[added], PROCESSORS[processor])
    for name, (part, _) in zip(("pre_tokenizer", "normalizer"), chosen[:2], strict=True):
        if part is not None:
            setattr(library, name, part)
    if chosen[3][0] is not None:
        library.post_processor = chosen[3][0]
    tokens = [tokenizers.AddedToken(content, **how) for content, how in ADDED[added][0]]
    library.add_tokens([token for token in tokens if not token.special])
    library.add_special_tokens([token for token in tokens if token.special])
    says = [answer for _, answer in chosen]
    # Where white space in front of a normalized token counts, it depends on the normalizer.
    return library, None if None in says and False not in says else False not in says


def names_of(of_bytes):
    return (SPLITTERS if of_bytes else OF_CHARACTERS, NORMALIZERS, ADDED, PROCESSORS)


def cuttable(of_bytes):
    """Names of the components with which texts may be cut."""
    return [[name for name in kinds if kinds[name][1] is not False] for kinds in names_of(of_bytes)]


def choices(of_bytes):
    """Names of components: of any, and as often of those with which texts may be cut."""
    every = map(sorted, names_of(of_bytes))
    return st.one_of(
        *(st.tuples(*map(st.sampled_from, names)) for names in (every, cuttable(of_bytes)))
    )


@pytest.mark.parametrize("of_bytes", [True, False], ids=["bytes", "characters"])
@settings(max_examples=40)
@given(data=st.data())
def test_parts_have_the_tokens_of_the_whole(of_bytes, data):
    names = data.draw(choices(of_bytes))
    library, expected = made(*names, of_bytes=of_bytes)
    tokenizer = LibraryTextTokenizer(library)
    if expected is not None:
        assert cutting.is_cuttable(library) == expected, names
    for text in data.draw(st.lists(TEXTS, min_size=8, max_size=8)):
        whole = library.encode(text, add_special_tokens=False).ids
        with mock.patch.object(cutting, "PART", 0):
            found = tokenizer.encode(text)
        np.testing.assert_array_equal(found, whole, err_msg=f"{names} {text!r}")


@pytest.mark.parametrize("of_bytes", [True, False], ids=["bytes", "characters"])
def test_any_neighbours_of_a_cut(of_bytes):
    """All pairs of them, with tokenizers of all components that texts may be cut with."""
    texts = [(f"{one}\n", other) for one, other in itertools.product(PARTS, PARTS)]
    with mock.patch.object(cutting, "PART", 0):
        cuts = [(a, b) for a, b in texts if list(cutting.parts(a + b))[-1:] == [b]]
    assert len(cuts) > 300
    splitters, normal, added, after = cuttable(of_bytes)
    # With two kinds of components at a time; processors see no text.
    chosen = {*itertools.product(splitters, ["none"], added, ["none"])}
    chosen |= {*itertools.product(splitters[:1], normal, added[:4], ["none"])}
    chosen |= {*itertools.product(splitters[:1], ["none"], ["special"], after)}
    tried = 0
    for names in sorted(chosen):
        library, _ = made(*names, of_bytes=of_bytes)
        if not cutting.is_cuttable(library):
            continue
        before, after, whole = (
            [found.ids for found in library.encode_batch_fast(batch, add_special_tokens=False)]
            for batch in (*map(list, zip(*cuts, strict=True)), ["".join(cut) for cut in cuts])
        )
        for cut, *ids in zip(cuts, before, after, whole, strict=True):
            assert ids[0] + ids[1] == ids[2], (names, cut)
        tried += 1
    assert tried > 25


@pytest.mark.parametrize("splitter", [name for name, (_, cuts) in SPLITTERS.items() if cuts])
@given(text=TEXTS)
def test_every_splitter_ends_a_split_at_every_cut(splitter, text):
    """The claim itself, without a model that might hide a difference."""
    splits = SPLITTERS[splitter][0].pre_tokenize_str
    with mock.patch.object(cutting, "PART", 0):
        parts = list(cutting.parts(text))
    assert "".join(parts) == text
    assert [word for word, _ in splits(text)] == [w for part in parts for w, _ in splits(part)]


def test_components_that_reach_over_a_cut_do_so():
    """Texts whose parts have other tokens: none of these could be cut."""
    text = "a\na\nword"
    cases = [
        made("bytes, a space in front", "none", "none", "none"),
        made("bytes, not split", "none", "none", "none"),
        made("bytes", "prepend", "none", "none"),
        made("bytes", "strip", "none", "none"),
        made("bytes", "none", "lstrip of a word", "none"),
        made("none", "none", "none", "none", of_bytes=False),
    ]
    for library, _ in cases:
        parts = [f"{line}\n" for line in text.split("\n")[:-1]] + ["word"]
        apart = [i for part in parts for i in library.encode(part, add_special_tokens=False).ids]
        assert apart != library.encode(text, add_special_tokens=False).ids


def test_our_own_tokenizers_may_be_cut():
    assert cutting.is_cuttable(character_tokenizer("ab\n"))
    for kind in ("bytes", "SmolLM"):
        assert cutting.is_cuttable(made(kind, "none", "none", "none")[0])


def test_normalizers_leave_cuts_what_they_are():
    """Of every character beside a cut, the normal forms have none of white space or marks there."""
    before, after = re.fullmatch(r"\(\?<=(.*)\)\\n\(\?=(.*)\)", cutting._CUT.pattern).groups()
    # All others are as they are, or lowercased.
    characters = [c for c in map(chr, range(0x110000)) if unicodedata.decomposition(c)]
    for pattern, end in ((before, -1), (after, 0)):
        beside = list(filter(re.compile(pattern).match, characters))
        assert len(beside) > 3000
        for form in ("NFC", "NFD", "NFKC", "NFKD"):
            ends = {unicodedata.normalize(form, c).lower()[end] for c in beside}
            assert not [c for c in ends if c.isspace() or (end == 0 and unicodedata.combining(c))]


@pytest.mark.parametrize(
    ("splitter", "normalizer", "added"),
    [
        ("bytes", "none", "none"),
        ("Llama 3", "NFC", "special"),
        ("bytes, a space in front", "none", "none"),
        ("bytes, not split", "none", "none"),
        ("bytes", "prepend", "none"),
        ("bytes", "strip", "none"),
        ("bytes", "none", "lstrip of a word"),
        ("GPT-2, merged", "none", "none"),
    ],
)
def test_long_texts(splitter, normalizer, added):
    text = "some words, and a\na\nword " * 5000
    library, may_be_cut = made(splitter, normalizer, added, "none")
    assert len(list(cutting.parts(text))) == 2
    whole = library.encode(text, add_special_tokens=False).ids
    with mock.patch.object(cutting, "parts", wraps=cutting.parts) as cut:
        np.testing.assert_array_equal(LibraryTextTokenizer(library).encode(text), whole)
    assert cut.called == may_be_cut
