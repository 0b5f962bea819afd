import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformer.data.embedded.sequences import KINDS, sequence_pairs
from transformer.errors import ConfigError

options = st.fixed_dictionaries(
    {
        "count": st.integers(0, 60),
        "min_length": st.integers(1, 4),
        "max_length": st.integers(4, 9),
        "alphabet": st.text("abcdü天", min_size=1),
        "seed": st.integers(0, 1000),
    }
)


def make(kind="copy", **changes):
    fields = {"count": 1000, "min_length": 1, "max_length": 20, "seed": 0, **changes}
    return sequence_pairs(kind, **fields)


def sources(pairs):
    return [source for source, _ in pairs]


@given(kind=st.sampled_from(KINDS), options=options)
def test_strings(kind, options):
    pairs = make(kind, **options)
    assert len(pairs) == options["count"]
    for source, _ in pairs:
        assert options["min_length"] <= len(source) <= options["max_length"]
        assert set(source) <= set(options["alphabet"])


@given(options=options)
def test_answers(options):
    copied, reverse, ordered = (make(kind, **options) for kind in ("copy", "reverse", "sort"))
    assert sources(copied) == sources(reverse) == sources(ordered)
    for (source, same), (_, back), (_, sorted_) in zip(copied, reverse, ordered, strict=True):
        assert same == source
        assert list(back) == list(reversed(source))
        assert list(sorted_) == sorted(source)


@given(options=options)
def test_repeats_only_when_all_have_come(options):
    texts = sources(make(**options))
    for length in {len(text) for text in texts}:
        of_length = [text for text in texts if len(text) == length]
        possible = len(set(options["alphabet"])) ** length
        assert len(set(of_length)) == min(len(of_length), possible)


def test_known_answers():
    for kind, change in {"copy": str, "reverse": lambda text: text[::-1]}.items():
        assert all(target == change(source) for source, target in make(kind))
    ordered = make("sort", alphabet="ab", min_length=3, max_length=3, count=8)
    assert dict(ordered)["bab"] == "abb"
    assert len(dict(ordered)) == 8


def test_seeds_decide():
    assert make() == make()
    assert make() != make(seed=1)


def test_lengths_are_uniform():
    texts = sources(make(count=10_000, min_length=5, max_length=9))
    counts = [sum(len(text) == length for text in texts) for length in range(5, 10)]
    assert sum(counts) == 10_000
    assert all(1800 < count < 2200 for count in counts)


def test_letters_by_default():
    assert set("".join(sources(make()))) == set(string.ascii_lowercase)


@pytest.mark.parametrize(
    ("kind", "hint"), [("sorted", 'did you mean "sort"'), ("translate", "copy, reverse, sort")]
)
def test_unknown_kind(kind, hint):
    with pytest.raises(ConfigError, match=f'"{kind}".*{hint}'):
        make(kind)


@pytest.mark.parametrize(("shortest", "longest"), [(0, 3), (-1, 3), (4, 3)])
def test_impossible_lengths(shortest, longest):
    with pytest.raises(ConfigError, match=rf"min_length is {shortest} .*max_length {longest}:"):
        make(min_length=shortest, max_length=longest)


def test_empty_alphabet():
    with pytest.raises(ConfigError, match="alphabet is empty"):
        make(alphabet="")
