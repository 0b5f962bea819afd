import importlib.util
import sys
from collections import Counter
from types import SimpleNamespace

import pytest

from transformer.data.embedded import catalogues
from transformer.data.embedded.catalogues import catalogue_documents, languages
from transformer.data.labels.tables import LabelledTexts
from transformer.errors import DataError, MissingDependencyError


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Writes catalogues to where `django` seems to be; messages named "held..." are held out."""
    pytest.importorskip("babel", reason="reads catalogues")
    from babel.messages.catalog import Catalog
    from babel.messages.mofile import write_mo

    monkeypatch.setattr(catalogues, "_is_kept", lambda message: message.startswith("held"))
    spec = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: {"django": spec}[name])

    def write(found):
        for (place, language, name), messages in found.items():
            path = tmp_path / place / "locale" / language / "LC_MESSAGES" / f"{name}.mo"
            path.parent.mkdir(parents=True, exist_ok=True)
            catalogue = Catalog(locale=language)
            for message, string in messages.items():
                context, _, english = (
                    message.rpartition("|") if "|" in message else ("", "", message)
                )
                english = (english, f"more {english}s") if isinstance(string, tuple) else english
                catalogue.add(english, string, context=context or None)
            with path.open("wb") as file:
                write_mo(file, catalogue)

    return write


GERMAN = {("conf", "de", "django"): {"trained": "gelernt", "held": "behalten"}}


def test_sides_and_labels(installed):
    installed(
        {
            **GERMAN,
            ("conf", "pt_BR", "django"): {"trained": "treinado", "held": "mantido"},
            ("contrib/admin", "de", "djangojs"): {"held too": "auch  behalten\n", "new": "neu"},
        }
    )
    assert languages(min_strings=1) == (
        LabelledTexts(["neu", "gelernt", "treinado"], None, ["de", "de", "pt_BR"]),
        LabelledTexts(["auch behalten", "behalten", "mantido"], None, ["de", "de", "pt_BR"]),
    )


def german(installed, messages):
    """The strings that are made of German messages."""
    installed({**GERMAN, ("contrib/auth", "de", "django"): messages})
    train, validation = languages(min_strings=1)
    return set(train.texts) - {"gelernt"}, set(validation.texts) - {"behalten"}


def test_plural_forms_and_contexts(installed):
    messages = {"held day": ("Tag", "Tage"), "name|May": "Mai", "short|May": "Mai.", "June": ""}
    assert german(installed, messages) == ({"Mai", "Mai."}, {"Tag", "Tage"})


def test_strings_need_letters_of_a_language(installed):
    messages = {
        "a": "%(count)s %d %%",
        "b": "{name}: {}",
        "c": "12:30",
        "d": "%s Ü",
        "e": "{a} %(b)s ok",
        "f": "日",
    }
    assert german(installed, messages) == ({"%s Ü", "{a} %(b)s ok", "日"}, set())


def test_equal_strings_are_there_once(installed):
    messages = {"one": "gleich", "two": "gleich", "held one": "beide", "three": "beide"}
    assert german(installed, messages) == ({"gleich"}, set())


def test_shared_strings_and_english_are_left_out(installed):
    installed(
        {
            **GERMAN,
            ("conf", "lb", "django"): {
                "trained": "geléiert",
                "held": "behalten",
                "held too": "och",
            },
            ("conf", "en", "django"): {"trained": "gelernt", "held": "kept"},
            ("conf", "en_GB", "django"): {"trained": "learnt"},
            ("contrib/gis", "de", "django"): {"held in German": "auch"},
        }
    )
    train, validation = languages(min_strings=1)
    assert train == LabelledTexts(["gelernt", "geléiert"], None, ["de", "lb"])
    assert validation == LabelledTexts(["auch", "och"], None, ["de", "lb"])


# Three Spanish strings are shared with a variant that has one of its own.
SPANISH = {"trained": "uno", "held": "dos", "more": "tres", "else": "quatro"}
VARIANTS = {
    ("conf", "es", "django"): SPANISH,
    ("conf", "es_MX", "django"): {**SPANISH, "else": "cuatro"},
    ("conf", "fr", "django"): {"trained": "un", "held": "deux", "more": "trois"},
    ("conf", "xx", "django"): {"trained": "x", "held": "y"},
}


def test_small_variants_give_way_to_others(installed):
    installed(VARIANTS)
    train, validation = languages(min_strings=3)
    # Both variants have one string of their own; the first one in the alphabet goes.
    assert dict(Counter(train.labels)) == {"es_MX": 3, "fr": 2}
    assert validation == LabelledTexts(["dos", "deux"], None, ["es_MX", "fr"])
    assert set(languages(min_strings=1)[0].labels) == {"es", "es_MX", "fr", "xx"}


def test_documents(installed, monkeypatch):
    installed(
        {
            **VARIANTS,
            ("conf", "fr", "django"): {"trained": "un", "held": "deux", "more": "trois", "x": "y"},
            ("contrib/admin", "fr", "django"): {"a": "b", "c": "d", "held too": "aussi"},
        }
    )
    monkeypatch.setattr(catalogues, "MIN_STRINGS", 3)
    train, validation = catalogue_documents()
    # "dos" and "y" are held out in one language, and so in no training document of another.
    assert [sorted(document) for document in train] == [
        ["quatro", "tres", "uno"],
        ["cuatro", "tres", "uno"],
        ["b", "d"],
        ["trois", "un"],
        ["x"],
    ]
    assert validation == [["dos"], ["aussi"], ["deux"]]


def test_too_few_strings(installed):
    installed(GERMAN)
    with pytest.raises(DataError, match="no language of the installed django has 3 strings"):
        languages(min_strings=3)


def test_no_catalogues(installed):
    with pytest.raises(DataError, match="no compiled message catalogues"):
        languages()


@pytest.mark.parametrize(
    "content", [b"", b"no catalogue at all", b"\xde\x12\x04\x95" + b"\xff" * 16]
)
def test_damaged_catalogues_are_named(installed, tmp_path, content):
    installed(GERMAN)
    (path,) = tmp_path.rglob("django.mo")
    path.write_bytes(content)
    with pytest.raises(DataError, match="no message catalogue") as error:
        languages()
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize("package", ["django", "babel"])
def test_missing_packages(installed, monkeypatch, package):
    installed(GERMAN)
    if package == "django":
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "babel.messages.mofile", None)
    with pytest.raises(MissingDependencyError, match=rf"'{package}'.*\.\[data\]"):
        languages()


def test_only_letters_decide_where_a_message_goes():
    messages = [f"Message {number}" for number in range(2000)]
    held_out = [catalogues._is_kept(message) for message in messages]
    assert 0.08 < sum(held_out) / 2000 < 0.12
    assert held_out == [catalogues._is_kept(f" {m.upper()}:\n".replace(" ", "-")) for m in messages]


def test_as_published(monkeypatch):
    pytest.importorskip("babel", reason="reads catalogues")
    pytest.importorskip("django", reason="its catalogues are read")
    found = catalogues._catalogues()
    assert len({language for language, _, _ in found}) > 80
    some = [catalogue for catalogue in found if catalogue[0][:2] in ("de", "es", "pt", "uk", "zh")]
    monkeypatch.setattr(catalogues, "_catalogues", lambda: some)
    train, validation = languages()
    assert {"de", "pt", "pt_BR", "uk"} < set(train.labels) == set(validation.labels)
    texts = train.texts + validation.texts
    assert len(set(texts)) == len(texts) > 3000
    assert 0.05 < len(validation.texts) / len(texts) < 0.12
    assert ("de", "Passwort ändern") in zip(train.labels + validation.labels, texts, strict=True)
    documents, held_out = catalogue_documents()
    assert sorted(line for document in held_out for line in document) == sorted(validation.texts)
    seen = {line for document in documents for line in document}
    assert set(train.texts) < seen
    assert not seen & set(validation.texts)
