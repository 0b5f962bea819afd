import codecs
import gzip
import io
import os

import pytest

from transformer.data.embedded.plays import plain_play
from transformer.data.reading.text import IncomingLines, in_chunks, read_text, split_text
from transformer.errors import DataError

# Separators of Unicode, and of old printers, that end no line.
INSIDE = "天\u2028地\u2029\x85\x0b\x0c\x1c\x1d\x1e\rü"
TEXT = f"{INSIDE}\n\n and spaces \n"


class Slow(io.BytesIO):
    """Gives a few bytes at a time."""

    def __init__(self, content, size):
        super().__init__(content)
        self._size = size

    def read1(self, size=-1):
        return super().read1(min(size, self._size))


def lines_of(text):
    return text.removesuffix("\n").split("\n") if text else []


def written(text, *, mark=b"", ends="\n", compressed=False):
    content = mark + text.replace("\n", ends).encode()
    return gzip.compress(content) if compressed else content


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8], ids=["plain", "mark"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("compressed", [False, True], ids=["", "gzip"])
def test_a_text_is_the_same_however_it_is_written(tmp_path, mark, ends, compressed):
    path = tmp_path / "a.txt"
    path.write_bytes(written(TEXT, mark=mark, ends=ends, compressed=compressed))
    assert read_text(path) == read_text(str(path)) == TEXT


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8], ids=["plain", "mark"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("size", [1, 3, 1 << 16])
def test_standard_input_has_the_lines_of_a_file(mark, ends, size):
    for text in (TEXT, TEXT + "last", "", "\n", "one"):
        stream = Slow(written(text, mark=mark, ends=ends), size)
        assert list(IncomingLines(stream, "the input")) == lines_of(text)


def unusable():
    """What no reader takes, and what each of them says."""
    text = "good film\nbad film\n"
    for encoding in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
        name = encoding[:6]
        yield f"\ufeff{text}".encode(encoding), f"is {name.upper()} .*iconv -f {name} -t utf-8"
    yield text.encode("utf-16-le"), "line 1.* has a NUL byte.*UTF-16"
    yield b"one\ntwo\0\n", "line 2.* has a NUL byte.*UTF-16"
    yield b"caf\xe9 is latin1", "is not UTF-8 text: byte 3 is 0xe9.*iconv"
    yield b"old\rMac\r", "carriage returns and no line feed"


@pytest.mark.parametrize(("content", "message"), list(unusable()), ids=ascii)
def test_other_encodings_are_refused_by_name(tmp_path, content, message):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"a.txt.*{message}"):
        read_text(path)
    with pytest.raises(DataError, match=f"the input.*{message}|{message}"):
        list(IncomingLines(io.BytesIO(content), "the input"))


def test_compressed_standard_input():
    with pytest.raises(DataError, match=r"the input is compressed.*gunzip"):
        list(IncomingLines(io.BytesIO(gzip.compress(b"text")), "the input"))


def test_lines_are_answered_as_they_come():
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as stream, os.fdopen(writer, "wb", buffering=0) as other:
        chunks = in_chunks(IncomingLines(stream, "the input"), 3)
        other.write(b"one\ntwo\n")
        assert next(chunks) == ["one", "two"]
        other.write(b"thr")
        other.write(b"ee\r\nfo")
        assert next(chunks) == ["three"]
        other.write(b"ur\n" + b"more\n" * 4)
        assert next(chunks) == ["four", "more", "more"]
        assert next(chunks) == ["more", "more"]
        other.write(b"last")
        other.close()
        assert list(chunks) == [["last"]]


def test_a_file_is_read_in_full_chunks(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_bytes(b"a line\n" * 25_000)
    with path.open("rb") as stream:
        chunks = list(in_chunks(IncomingLines(stream, "the input"), 10_000))
    assert list(map(len, chunks)) == [10_000, 10_000, 5_000]
    assert list(map(len, in_chunks(["a"] * 5, 2))) == [2, 2, 1]


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


@pytest.mark.parametrize("content", [b"", b" \n\t\r\n ", codecs.BOM_UTF8])
def test_empty(tmp_path, content):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match="is empty"):
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
