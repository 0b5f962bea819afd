"""The one way from bytes to text: of files, of standard input, of arguments and flags.

Text is UTF-8, with or without a byte-order mark. A line ends with a line feed, or with a carriage
return and a line feed, which become one line feed; no other separator of Unicode ends one, and a
text whose lines end with lone carriage returns is refused. So a text means the same in training and
in use, whatever program wrote it. Other encodings are refused by name: otherwise encodings would
have to be detected at every input, even if text arrives line by line.
"""

import collections
import io
import re
import select
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from transformer.data.reading import bounds
from transformer.data.reading.content import GZIP, read_content
from transformer.errors import DataError

_MARK = "\ufeff"
# The byte-order marks of other encodings; longer ones first, as one is a prefix of another.
_OTHER_MARKS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
# Halves of surrogate pairs, which cannot be encoded: they come from escapes in JSON, and from
# arguments that are not UTF-8.
SURROGATES = re.compile("[\ud800-\udfff]")
# Bytes of standard input that are taken at a time, at most.
_AT_ONCE = 1 << 16


def read_text(path: str | Path, *, may_be_empty: bool = False) -> str:
    """A UTF-8 text file, plain or gzip, without byte-order mark; lines end with line feeds.

    Args:
        path: the path of the file.
        may_be_empty: whether a file of nothing but white space is one.

    Raises:
        DataError: if it is missing, not a file, empty, not UTF-8 (the byte's place is named), or
            above a limit of `bounds`.
    """
    text = decode_text(read_content(Path(path), "a text file", is_text=True), str(path))
    if not may_be_empty and (not text or text.isspace()):
        raise DataError(f"{path} is empty: there is nothing to learn from.")
    return text


def decode_text(content: bytes, where: str) -> str:
    """Decodes bytes, without byte-order mark; lines end with line feeds.

    Args:
        content: UTF-8.
        where: their origin, for messages.

    Raises:
        DataError: if they are of another encoding, or lines end with lone carriage returns.
    """
    _require_utf8_mark(content, where)
    text = _decoded(
        content, where, lambda place: f"{where}, line {content.count(10, 0, place) + 1}"
    )
    text = with_line_feeds(text.removeprefix(_MARK))
    if "\n" not in text:
        _require_one_line(text, where)
    return text


def with_line_feeds(text: str) -> str:
    """A text whose lines end with line feeds, not with carriage returns before them."""
    return text.replace("\r\n", "\n")


def require_characters(text: str, where: str) -> str:
    """The text, if it can be encoded.

    Raises:
        DataError: if it has half of a surrogate pair.
    """
    found = SURROGATES.search(text)
    if found:
        raise DataError(
            f"{where} has half of a surrogate pair as character {found.start()}, or is not UTF-8: "
            f"write the whole character."
        )
    return text


class IncomingLines(Iterator[str]):
    """The lines of a stream as they arrive, without their line ends.

    Each line is available as soon as it is written, even if the stream then waits.
    """

    def __init__(self, stream: io.BufferedIOBase, name: str) -> None:
        """Reads nothing yet.

        Args:
            stream: the stream of bytes, as `sys.stdin.buffer`.
            name: the name of the stream, for messages.
        """
        self._stream, self._name = stream, name
        self._lines: collections.deque[bytes] = collections.deque()
        # The beginning of a line that has not ended yet.
        self._rest: list[bytes] = []
        self._count = 0
        self._at_end = self._unended = False

    def __next__(self) -> str:
        """The next line, waiting for it.

        Raises:
            DataError: if it is not UTF-8, or too long.
        """
        while not self._lines and not self._at_end:
            self._take()
        if not self._lines:
            raise StopIteration
        text = self._decoded(self._lines.popleft())
        # A byte-order mark alone is no line.
        if not text and self._unended and not self._lines:
            raise StopIteration
        return text

    @property
    def is_waiting(self) -> bool:
        """Whether the next line, or the end, is still to come."""
        while not self._lines and not self._at_end and _has_more(self._stream):
            self._take()
        return not self._lines and not self._at_end

    def _take(self) -> None:
        """Takes all available bytes, waiting until there are some."""
        try:
            data = self._stream.read1(_AT_ONCE)
        except OSError as error:
            raise DataError(f"{self._name} cannot be read: {error.strerror}.") from None
        *ended, rest = data.split(b"\n")
        if ended:
            self._lines.append(b"".join([*self._rest, ended[0]]))
            self._lines.extend(ended[1:])
            self._rest = []
        if rest:
            self._rest.append(rest)
            if sum(map(len, self._rest)) > bounds.LINE_BYTES:
                raise DataError(
                    f"line {self._count + len(self._lines) + 1} of {self._name} has more than "
                    f"{bounds.LINE_BYTES:,} bytes: give shorter lines."
                )
        if not data:
            self._at_end, self._unended = True, bool(self._rest)
            self._lines.extend([b"".join(self._rest)] if self._rest else [])

    def _decoded(self, line: bytes) -> str:
        self._count += 1
        where = f"line {self._count} of {self._name}"
        if self._count == 1:
            _require_utf8_mark(line, self._name)
        text = _decoded(line, where, lambda place: where)
        if self._count == 1:
            text = text.removeprefix(_MARK)
        if self._count == 1 and self._unended and not self._lines:
            _require_one_line(text, self._name)
        return text.removesuffix("\r")


def in_chunks(lines: Iterable[str], size: int) -> Iterator[list[str]]:
    """Groups of lines: as many as are available without waiting, at most `size`."""
    chunk: list[str] = []
    for line in lines:
        chunk.append(line)
        if len(chunk) == size or (isinstance(lines, IncomingLines) and lines.is_waiting):
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def split_text(text: str, validation_fraction: float) -> tuple[str, str]:
    """The first part of a text for training and its last `validation_fraction` for validation."""
    cut = round(len(text) * (1.0 - validation_fraction))
    return text[:cut], text[cut:]


def _has_more(stream: io.BufferedIOBase) -> bool:
    """Whether reading returns at once, also at the end; always, if it is no file of the system."""
    try:
        return bool(select.select([stream.fileno()], [], [], 0)[0])
    except (OSError, ValueError):
        return isinstance(stream, io.BytesIO)


def _require_utf8_mark(content: bytes, where: str) -> None:
    """Refuses content that begins like another encoding or a compressed file."""
    for mark, name in _OTHER_MARKS:
        if content.startswith(mark):
            raise DataError(
                f"{where} is {name} (it begins with the bytes {mark.hex(' ')}), and UTF-8 is "
                f"expected. Convert it first, for example with: iconv -f {name.lower()} -t utf-8"
            )
    if content.startswith(GZIP):
        raise DataError(f"{where} is compressed with gzip: give it through gunzip -c.")


def _decoded(content: bytes, where: str, line_of: Callable[[int], str]) -> str:
    """UTF-8 as text.

    Args:
        content: the bytes.
        where: their origin, for messages.
        line_of: names the line of the byte at a place.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where} is not UTF-8 text: byte {error.start} is 0x{content[error.start]:02x}. "
            f"Convert it first, for example with: iconv -f latin1 -t utf-8"
        ) from None
    place = content.find(0)
    if place >= 0:
        raise DataError(
            f"{line_of(place)} has a NUL byte, which text has not: UTF-16 must be converted "
            f"first, for example with: iconv -f utf-16le -t utf-8"
        )
    return text


def _require_one_line(text: str, where: str) -> None:
    """Refuses a text in which carriage returns alone end lines, as on old Macs."""
    if "\r" in text.rstrip("\r"):
        raise DataError(
            f"{where} has carriage returns and no line feed: lines must end with line feeds. "
            f"Convert it first, for example with: tr '\\r' '\\n'"
        )
