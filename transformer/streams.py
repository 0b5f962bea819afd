"""Standard streams that are closed, full or gone: what they had to say is lost, and no more."""

import errno
import io
import os
import sys
from typing import Any


def make_safe() -> None:
    """Sees to it that no stream of people's ends what is done.

    What is opened later would get the number of a stream that was closed at the start, and what
    libraries say on stderr would be written into it: into a checkpoint, for example. And a terminal
    that has gone, or a full disk behind `2>log`, would end a run at its next line of progress.
    Standard output, which results are written to, still fails.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            handle = os.open(os.devnull, os.O_RDWR)
            if handle != number:
                os.dup2(handle, number)
                os.close(handle)
    if sys.stdout is None:
        sys.stdout = _stream(_Heedless(1))
    elif isinstance(sys.stdout, io.TextIOWrapper):
        # What is read is UTF-8 whatever the locale says, and so is what is written. Names of files
        # that are not UTF-8 come out as they went in.
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    if sys.stderr is None:
        sys.stderr = _stream(_Heedless(2))
    elif _number(sys.stderr) == 2:
        sys.stderr = _stream(_Heedless(2), sys.stderr.encoding)


def flushed() -> str:
    """Writes out what is left for standard output; why that failed, or nothing.

    Whoever reads it may leave when he has seen enough, as `head` does: that has no reason.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        # Python would try it once more at its end.
        handle = os.open(os.devnull, os.O_WRONLY)
        os.dup2(handle, 1)
        os.close(handle)
        return "" if error.errno == errno.EPIPE else f"{error.strerror}"
    return ""


def _number(stream: Any) -> int | None:
    """Of the file of the system that a stream writes to; None if it is none."""
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return None


def _stream(raw: Any, encoding: str = "utf-8") -> io.TextIOWrapper:
    buffered = io.BufferedWriter(raw, buffer_size=1)
    return io.TextIOWrapper(buffered, encoding, errors="backslashreplace", write_through=True)


class _Heedless(io.RawIOBase):
    """A file of the system whose failures are nobody's concern."""

    def __init__(self, number: int) -> None:
        self._number = number

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self._number)

    def fileno(self) -> int:
        return self._number

    def write(self, content: Any, /) -> int:
        view = memoryview(content).cast("B")
        try:
            while view:
                view = view[os.write(self._number, view) :]
        except OSError:
            pass
        return memoryview(content).nbytes
