import os

import pytest

from transformer.data.plays import plain_play
from transformer.data.text import read_text, split_text
from transformer.errors import DataError


def test_reads_utf8(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("天地\r\nü".encode())
    assert read_text(path) == read_text(str(path)) == "天地\r\nü"


def test_missing(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.txt does not exist"):
        read_text(tmp_path / "nothing.txt")


def test_folder(tmp_path):
    with pytest.raises(DataError, match="is a folder"):
        read_text(tmp_path)


def test_below_a_file(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(DataError):
        read_text(tmp_path / "a.txt" / "b.txt")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_forbidden(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("text")
    path.chmod(0)
    with pytest.raises(DataError, match="permission denied"):
        read_text(path)


@pytest.mark.parametrize("content", [b"", b" \n\t\r\n "])
def test_empty(tmp_path, content):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match="is empty"):
        read_text(path)


def test_not_utf8(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"caf\xe9 is latin1")
    with pytest.raises(DataError, match="byte 3 is 0xe9"):
        read_text(path)


@pytest.mark.parametrize("fraction", [0.1, 0.5])
def test_split_keeps_everything(fraction):
    text = "0123456789"
    train, validation = split_text(text, fraction)
    assert train + validation == text
    assert len(validation) == 10 * fraction


def test_plain_play():
    markdown = (
        "# ROMEO AND JULIET\n"
        "\n"
        "## ACT I\n"
        "\n"
        "### SCENE I. _Verona._\n"
        "\n"
        "**SAMPSON**  \n"
        "Gregory, *on my word*, we'll not carry coals.  \n"
        "I mean\\, an we be in choler\n"
        "\n"
        "_[Exit]_\n"
        "\n"
        "**FIRST SERVANT**\n"
        "**No**, sir.\n"
        "\n\n"
    )
    assert plain_play(markdown) == (
        "ROMEO AND JULIET\n"
        "\n"
        "ACT I\n"
        "\n"
        "SCENE I. Verona.\n"
        "\n"
        "SAMPSON:\n"
        "Gregory, on my word, we'll not carry coals.\n"
        "I mean, an we be in choler\n"
        "\n"
        "[Exit]\n"
        "\n"
        "FIRST SERVANT:\n"
        "No, sir.\n"
    )
