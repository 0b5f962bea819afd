import datetime
import sys
from functools import partial
from random import Random

import pytest

from transformer.data.embedded import phrases
from transformer.data.embedded.phrases import phrase_pairs, split_phrases
from transformer.errors import ConfigError, MissingDependencyError


@pytest.fixture(scope="module")
def pairs():
    pytest.importorskip("babel")
    return phrase_pairs("en", "de", count=5000, seed=0)


def only(monkeypatch, *renderings):
    """Draws these renderings, in turn and again, in place of random phrases."""
    meanings = iter(renderings * 100)
    monkeypatch.setattr(phrases, "KINDS", (lambda _: next(meanings),))


def drawn(kind, draws=10_000):
    """What draws of one kind give in English, with the German."""
    babel = pytest.importorskip("babel")
    random, english, german = Random(0), babel.Locale("en"), babel.Locale("de")
    renderings = [render for _ in range(draws) for render in kind(random)]
    plain = phrases._plain
    return {plain(write(locale=english)): plain(write(locale=german)) for write in renderings}


def fixed(**texts):
    return lambda *, locale: texts[locale.language]


def test_seeds_decide(pairs):
    assert phrase_pairs("en", "de", count=5000, seed=0) == pairs
    other = phrase_pairs("en", "de", count=5000, seed=1)
    assert len(dict(other).keys() & dict(pairs).keys()) < 2500


@pytest.mark.parametrize("count", [0, 1, 2, 100])
def test_counts(count):
    pytest.importorskip("babel")
    assert len(phrase_pairs("en", "de", count=count, seed=0)) == count


def test_sources_are_distinct(pairs):
    assert len({source for source, _ in pairs}) == len(pairs) == 5000


def test_one_plain_line(pairs):
    for text in (text for pair in pairs for text in pair):
        assert text == text.strip() != ""
        assert all(character.isprintable() for character in text)


def test_spaces(monkeypatch):
    pytest.importorskip("babel")
    only(monkeypatch, [fixed(en=" 3:30\u202fPM\n", de="15\u00a0Uhr  30")])
    assert phrase_pairs("en", "de", count=1, seed=0) == [("3:30 PM", "15 Uhr 30")]


@pytest.mark.parametrize("kind", phrases.KINDS)
def test_every_kind_is_drawn(pairs, kind):
    assert len(drawn(kind, 1000).keys() & dict(pairs).keys()) > 20


def test_a_date(monkeypatch):
    pytest.importorskip("babel")
    monkeypatch.setattr(phrases, "_day", lambda _: datetime.date(1969, 7, 20))
    monkeypatch.setattr(phrases, "KINDS", (phrases._dates,))
    assert phrase_pairs("en", "de", count=3, seed=0) == [
        ("Sunday, July 20, 1969", "Sonntag, 20. Juli 1969"),
        ("July 20, 1969", "20. Juli 1969"),
        ("Jul 20, 1969", "20.07.1969"),
    ]


def test_a_moment():
    babel = pytest.importorskip("babel")
    day, time = datetime.date(2020, 5, 4), datetime.time(15, 30)
    write = partial(phrases._moment, day, time, "full")
    english, german = (phrases._plain(write(locale=babel.Locale(name))) for name in ("en", "de"))
    assert english.startswith("Monday, May 4, 2020")
    assert english.endswith("3:30 PM")
    assert german.startswith("Montag, 4. Mai 2020")
    assert german.endswith("15:30")


def test_a_list():
    babel = pytest.importorskip("babel")
    for name, expected in {
        "en": "Germany, France, and Italy",
        "de": "Deutschland, Frankreich und Italien",
    }.items():
        write = partial(phrases._list, "territories", ["DE", "FR", "IT"], "standard")
        assert write(locale=babel.Locale(name)) == expected


@pytest.mark.parametrize(
    ("kind", "source", "target"),
    [
        (phrases._relative_times, "in 3 weeks", "in 3 Wochen"),
        (phrases._relative_times, "14 days ago", "vor 14 Tagen"),
        (phrases._percentages, "12.5%", "12,5 %"),
        (phrases._units, "1 kilometer", "1 Kilometer"),
        (phrases._currencies, "1 euro", "1 Euro"),
    ],
)
def test_known_phrases(kind, source, target):
    assert drawn(kind)[source] == target


def test_ambiguous_sources_are_left_out(monkeypatch):
    pytest.importorskip("babel")
    may = [fixed(en="May 4", de="4. Mai"), fixed(en="May 4", de="04.05.")]
    june = [fixed(en="June 4", de="4. Juni"), fixed(en="June 4", de="4. Juni")]
    only(monkeypatch, may, june, may[:1], [fixed(en="July 4", de="4. Juli")])
    assert phrase_pairs("en", "de", count=2, seed=0) == [
        ("June 4", "4. Juni"),
        ("July 4", "4. Juli"),
    ]


def test_may_is_ambiguous(pairs):
    months = {source.split()[0] for source, _ in pairs if source[-4:].isdigit()}
    assert {"Apr", "April", "Jun", "June"} < months
    assert "May" not in months
    assert any(", May" in source for source, _ in pairs)


@pytest.mark.parametrize(("source", "target"), [("de", "en"), ("fr", "ja"), ("pt-BR", "zh_Hant")])
def test_other_languages(source, target):
    pytest.importorskip("babel")
    pairs = phrase_pairs(source, target, count=500, seed=0)
    assert all(text for pair in pairs for text in pair)


@pytest.mark.parametrize("name", ["xx", "German", "english!", "", "../de"])
def test_unknown_locale(name):
    pytest.importorskip("babel")
    with pytest.raises(ConfigError, match=f'source_language is "{name}".*such as "en"'):
        phrase_pairs(name, "de", count=1, seed=0)
    with pytest.raises(ConfigError, match=f'target_language is "{name}".*such as "en"'):
        phrase_pairs("en", name, count=1, seed=0)


def test_without_babel(monkeypatch):
    monkeypatch.setitem(sys.modules, "babel", None)
    with pytest.raises(MissingDependencyError, match=r"'babel'.*\[data\]"):
        phrase_pairs("en", "de", count=1, seed=0)


def test_split_keeps_everything_once():
    pairs = [(str(number), str(-number)) for number in range(5000)]
    train, validation = split_phrases(pairs, 0.1)
    assert sorted(train + validation) == sorted(pairs)
    assert 400 < len(validation) < 600


def test_split_goes_by_source():
    pairs = [(str(number), str(-number)) for number in range(500)]
    train, validation = split_phrases(pairs, 0.3)
    # Neither the target, nor the order, nor the other pairs matter.
    changed = [(source, "") for source, _ in reversed(pairs[::2] * 2)]
    changed_train, changed_validation = split_phrases(changed, 0.3)
    assert dict(changed_train).keys() < dict(train).keys()
    assert dict(changed_validation).keys() < dict(validation).keys()
    # Of SHA-256, and so the same on every machine and in every process.
    assert [source for source, _ in validation[:5]] == ["4", "8", "9", "10", "13"]


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_split_ends(fraction):
    pairs = [(str(number), "") for number in range(100)]
    assert len(split_phrases(pairs, fraction)[1]) == 100 * fraction
