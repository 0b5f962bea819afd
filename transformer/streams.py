"""Standard streams that are closed, full or gone: their output is lost, but nothing else."""

import errno
import io
import os
import sys


def make_safe() -> None:
    """Prevents closed streams, and failures of stderr, from ending the program.

    If a stream is closed at the start, the next opened file would get its number, and libraries'
    messages on stderr would go into that file: into a checkpoint, for example. And a terminal that
    has gone, or a full disk behind `2>log`, would end a run at its next line of progress. Standard
    output, which carries results, still fails.
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
        # Input and output are UTF-8 in any locale. File names that are not UTF-8 are written as
        # they were read.
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    if sys.stderr is None:
        sys.stderr = _stream(_Heedless(2))
    elif _writes_to_stderr():
        sys.stderr = _stream(_Heedless(2), sys.stderr.encoding)


def flushed() -> str:
    """Flushes standard output; returns the reason if that fails, else an empty text.

    A reader that closes the pipe early, as `head` does, is no failure.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        # Python would flush once more at its exit.
        handle = os.open(os.devnull, os.O_WRONLY)
        os.dup2(handle, 1)
        os.close(handle)
        return "" if error.errno == errno.EPIPE else f"{error.strerror}"
    return ""


def _writes_to_stderr() -> bool:
    """Whether `sys.stderr` is the standard stream, and nothing that replaces it."""
    try:
        return sys.stderr.fileno() == 2
    except (OSError, ValueError):
        return False


def _stream(raw: io.RawIOBase, encoding: str = "utf-8") -> io.TextIOWrapper:
    buffered = io.BufferedWriter(raw, buffer_size=1)
    return io.TextIOWrapper(buffered, encoding, errors="backslashreplace", write_through=True)


class _Heedless(io.RawIOBase):
    """A file whose write errors are ignored."""

    def __init__(self, number: int) -> None:
        self._number = number

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self._number)

    def fileno(self) -> int:
        return self._number

    def write(self, content: bytes | bytearray | memoryview, /) -> int:
        view = memoryview(content).cast("B")
        try:
            while view:
                view = view[os.write(self._number, view) :]
        except OSError:
            pass
        return memoryview(content).nbytes
