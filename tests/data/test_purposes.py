import pytest

from transformer.data.embedded import purposes as module
from transformer.data.embedded.purposes import purposes, running_text
from transformer.errors import DataError


def function(name, text):
    return f'def {name}(first, *, second):\n    """{text}\n    """\n'


BODY = "It reads the whole of it, one line after another, and\n    closes it."


@pytest.fixture
def packages(tmp_path, monkeypatch):
    files = {
        "kept/a.py": function("read", f"Reads a file. {BODY}")
        + function("copy", f"Copies a file. {BODY} Twice.")
        + function("short", "Two words.")
        + 'class Reader:\n    """Holds open files\n\n    Args:\n        x: 1\n    """\n',
        "kept/b.py": '"""A module that says a lot.\n\nAnd more."""\n',
        "optax/c.py": function("copy_all", f"Copies all files.\n\n    {BODY} Twice.")
        + function("bare", "Says little here."),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "library").mkdir()
    monkeypatch.setattr(module.sysconfig, "get_paths", lambda: {"stdlib": tmp_path / "library"})
    monkeypatch.setattr(
        module,
        "package_folder",
        lambda name: tmp_path / name if (tmp_path / name).exists() else None,
    )
    monkeypatch.setattr(module, "_PACKAGES", ("kept", "absent"))
    return tmp_path


def test_names_and_texts_and_what_they_are_for(packages):
    train, validation = purposes()
    clean = " ".join(BODY.split())
    assert validation == (["copy_all(first, second): " + clean + " Twice."], ["Copies all files."])
    # `copy` has the text of the held-out function; `short` has no summary.
    assert train == (
        [f"read(first, second): {clean}", "class Reader:"],
        ["Reads a file.", "Holds open files."],
    )


def test_the_packages_to_validate_on_are_needed(packages, monkeypatch):
    monkeypatch.setattr(module, "HELD_OUT_PACKAGES", ("nothing",))
    with pytest.raises(DataError, match="nothing are not installed"):
        purposes()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Says it\nagain.\n\nMore.", "Says it again. More."),
        ("Says it\n\nMore.", "Says it. More."),
        ("Says it.\n\nMore.\n\nParameters\n----------\nx : int", "Says it. More."),
        ("Says it.\n\nArgs:\n  x: a number.", "Says it."),
        ("Says it.\n:param x: a number.", "Says it."),
        ("Says it.\n>>> 1 + 1\n2", "Says it."),
        ("", ""),
    ],
)
def test_running_text(text, expected):
    assert running_text(text) == expected
