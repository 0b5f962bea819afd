import pytest

from transformer.data.embedded import docstrings as module
from transformer.data.embedded.docstrings import docstring_text, docstrings, summaries
from transformer.data.embedded.held_out import is_held_out
from transformer.errors import DataError

BODY = "It goes through all of them,\n    one   after another, and stops at the last."
CLEAN = "It goes through all of them, one after another, and stops at the last."


def function(name, summary, body=BODY):
    return f'def {name}():\n    """{summary}\n\n    {body}\n    """\n'


@pytest.fixture
def library(tmp_path):
    files = {
        "b.py": '"""Only a line."""\n' + function("first", "Visits all the files."),
        "a/inner.py": (
            f'class A:\n    """Holds many open files.\n\n    {BODY} Twice.\n    """\n'
            + "    async def f(self):\n        try:\n            def g():\n"
            + '                """Closes what is open.\n\n                Then it waits for more '
            + 'to be opened.\n                """\n        except OSError:\n            pass\n'
        ),
        "broken.py": "def :\n",
        "latin.py": b'"""A\xe9\n\nb\n"""\n',
        "test/test_b.py": function("tested", "Is not of the library."),
        "idlelib/editor.py": function("edits", "Is of a program here."),
        "x/site-packages/y.py": function("installed", "Is of somebody else here."),
        "held.py": function("other", "Reads all the files."),
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return tmp_path


def test_docstrings_in_the_order_of_files_and_places(library):
    found = [(name, text.split("\n")[0]) for name, text in docstrings(library)]
    assert found == [
        ("a/inner.py", "Holds many open files."),
        ("a/inner.py", "Closes what is open."),
        ("b.py", "Only a line."),
        ("b.py", "Visits all the files."),
        ("held.py", "Reads all the files."),
    ]


def held(monkeypatch, *names):
    monkeypatch.setattr(module, "is_held_out", lambda name, fraction: name in names)


def test_summaries_are_first_lines_of_longer_docstrings(library, monkeypatch):
    held(monkeypatch, "a/inner.py")
    train, validation = summaries(0.5, library)
    # The held-out module's pairs, and the others' without copies of each other.
    assert validation.target == ["Holds many open files.", "Closes what is open."]
    assert validation.source == [f"{CLEAN} Twice.", "Then it waits for more to be opened."]
    assert train.target == ["Visits all the files.", "Reads all the files."]
    assert train.source == [CLEAN, CLEAN]


def test_nothing_of_a_held_out_module_is_trained_on(library, monkeypatch):
    held(monkeypatch, "held.py")
    train, validation = summaries(0.5, library)
    assert validation.target == ["Reads all the files."]
    # The same body stands in b.py as well.
    assert train.target == ["Holds many open files.", "Closes what is open."]
    text, other = docstring_text(0.5, library)
    assert " ".join(other.split()) == f"Reads all the files. {CLEAN}"
    assert "Visits all" not in text
    assert "Only a line.\n" in text
    assert "Holds many open files." in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Says a thing.\n\nAnd more of it.", ("And more of it.", "Says a thing.")),
        ("Says a thing.\nAnd more of it.", None),
        ("Says a thing.", None),
        ("Two words.\n\nAnd more of it.", None),
        ("Says a thing.\n\nNo more.", None),
        ("word " * 25 + "\n\n" + "more " * 60, None),
        ("Says a thing.\n\n" + "more " * 500, (" ".join(["more"] * 150), "Says a thing.")),
    ],
    ids=range(7),
)
def test_what_is_a_summary(text, expected):
    assert module.summarized(text) == expected


def test_held_out_modules_are_a_fraction_and_more_with_a_larger_one():
    names = [f"package/module_{index}.py" for index in range(2000)]
    small, large = ({name for name in names if is_held_out(name, x)} for x in (0.05, 0.2))
    assert small < large
    assert 60 < len(small) < 140
    assert 330 < len(large) < 470


def test_too_little_is_refused(library, tmp_path, monkeypatch):
    with pytest.raises(DataError, match="no Python files"):
        docstrings(tmp_path / "empty")
    held(monkeypatch)
    for read in (summaries, docstring_text):
        with pytest.raises(DataError, match="too few"):
            read(0.5, library)
