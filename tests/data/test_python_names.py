import textwrap

import pytest

from transformer.data.embedded import python_names as module
from transformer.data.embedded.python_names import python_names
from transformer.errors import DataError

OTHER = "def spare(count):\n    return [count for _ in range(count + 1)]\n"


@pytest.fixture
def tagged(tmp_path, monkeypatch):
    """The names of functions of a file, each with its tag."""
    monkeypatch.setattr(module, "is_held_out", lambda name, fraction: name == "held")

    def tag(source):
        (tmp_path / "train.py").write_text(OTHER)
        (tmp_path / "held.py").write_text(textwrap.dedent(source))
        _, found = python_names(tmp_path)
        (words,), (tags,) = found
        return " ".join(
            f"{word}/{tag}" if tag != "O" else word for word, tag in zip(words, tags, strict=True)
        )

    return tag


def test_scopes_decide(tagged):
    """The same name is a parameter, a keyword, an attribute and a local variable."""
    found = tagged("""
        import os
        from typing import Text

        LIMIT = 3

        class Box: ...

        def fill(size, other=LIMIT):
            # A comment.
            box = Box(size=other.size, text=Text)
            return os.fill(box, [size for size in box.all()], len(size))
    """)
    assert found == (
        "def fill/FUNCTION ( size/PARAMETER , other/PARAMETER = LIMIT/GLOBAL ) : "
        "box/LOCAL = Box/CLASS ( size/KEYWORD = other/PARAMETER . size/ATTRIBUTE , "
        "text/KEYWORD = Text/GLOBAL ) "
        "return os/MODULE . fill/METHOD ( box/LOCAL , [ size/LOCAL for size/LOCAL in "
        "box/LOCAL . all/METHOD ( ) ] , len/BUILTIN ( size/PARAMETER ) )"
    )


def test_functions_in_functions_and_docstrings(tagged):
    found = tagged('''
        class A:
            def run(self, key, *more, **rest):
                """Says size and key.

                And more."""
                total = 0
                def inner(key=key):
                    return lambda other: (total, key, other, self.late)
                try:
                    key += inner("a string that is very long") or absent
                except OSError as error:
                    raise error
    ''')
    assert found == (
        "def run/FUNCTION ( self , key/PARAMETER , * more/PARAMETER , ** rest/PARAMETER ) : "
        "total/LOCAL = 0 def inner/FUNCTION ( key/PARAMETER = key/PARAMETER ) : return lambda "
        "other/PARAMETER : ( total/LOCAL , key/PARAMETER , other/PARAMETER , self . "
        'late/ATTRIBUTE ) try : key/PARAMETER += inner/FUNCTION ( "..." ) or absent/GLOBAL '
        "except OSError/BUILTIN as error/LOCAL : raise error/LOCAL"
    )


@pytest.mark.parametrize(
    "line", ["global x", "import os", 'y = f"{x}"', "class B: pass", 'y = "ä"']
)
def test_what_is_left_out(tagged, line):
    with pytest.raises(DataError, match="too few functions"):
        tagged(f"def some(first, second, third):\n    {line}\n    return first + second\n")


def test_what_is_validated_on_is_not_trained_on(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "is_held_out", lambda name, fraction: name == "held")
    more = "def more(count):\n    return {count: 1, 2: count, 3: 4}\n"
    files = {
        "a.py": OTHER + more,
        "held/inner.py": OTHER,
        "test/b.py": more.replace("more", "tested"),
        "broken.py": "def :\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    train, validation = python_names(tmp_path)
    assert [words[1] for words in train.words] == ["more"]
    assert [words[1] for words in validation.words] == ["spare"]
