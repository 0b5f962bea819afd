"""Files that are compressed with xz, unpacked with bounded memory.

The standard library's `lzma.open` takes whatever memory a file asks for, up to 4 GiB.
"""

import io
import lzma
from typing import BinaryIO

from transformer.data.reading import bounds

# The first bytes of an xz file.
XZ = b"\xfd7zXZ\x00"
_BLOCK = 1 << 16


class XZFile(io.BufferedIOBase):
    """The content of one or several xz streams, one after another.

    Args:
        file: the compressed bytes.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._unpacker = _unpacker()
        self._rest = b""

    def read(self, size: int | None = -1, /) -> bytes:
        """At most `size` bytes; none at the end.

        Raises:
            lzma.LZMAError: if the file is damaged, ends early or asks for too much memory.
        """
        while True:
            if self._unpacker.eof:
                # Padding between streams, and after the last one, is zeros.
                self._rest = (self._unpacker.unused_data or self._rest).lstrip(b"\0")
                self._rest = self._rest or self._file.read(_BLOCK).lstrip(b"\0")
                if not self._rest:
                    return b""
                self._unpacker = _unpacker()
            data, self._rest = self._rest, b""
            if self._unpacker.needs_input and not data:
                data = self._file.read(_BLOCK)
                if not data:
                    raise lzma.LZMAError("it ends before its last block")
            found = self._unpacker.decompress(data, -1 if size is None else size)
            if found:
                return found


def _unpacker() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, bounds.UNPACKER_BYTES)
