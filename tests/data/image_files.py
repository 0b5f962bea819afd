"""Small image files for tests."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def colours(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(image, form="PNG", **options):
    """The bytes of an image file, from an array or an image of Pillow."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    content = io.BytesIO()
    image.save(content, form, **options)
    return content.getvalue()


def write_files(root, files):
    """Writes files by their paths below a folder."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return str(root)


def class_folders(*names, count=2, prefix=""):
    """Images of classes; no two are the same."""
    return {
        f"{prefix}{name}/{number}.png": encoded(colours(3, 4, seed=100 * place + number))
        for place, name in enumerate(names)
        for number in range(count)
    }


def png(width, depth, kind, row, transparent=None, palette=None):
    """A PNG of one row that Pillow would not write.

    Args:
        width: in pixels.
        depth: bits of a number.
        kind: 0 grey, 2 RGB, 3 palette.
        row: packed numbers.
        transparent: numbers of the colour that is transparent.
        palette: bytes.
    """

    def chunk(name, data):
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, kind, 0, 0, 0))]
    if palette is not None:
        parts.append(chunk(b"PLTE", palette))
    if transparent is not None:
        parts.append(chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)))
    parts += [chunk(b"IDAT", zlib.compress(b"\0" + row)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(width, bits, photometric, row, samples=1, kind=1, extra=None, orientation=1):
    """A TIFF of one row that Pillow would not write.

    Args:
        width: in pixels.
        bits: of a number.
        photometric: 0 white is zero, 1 black is zero, 2 RGB, 5 CMYK, 6 YCbCr, 8 LAB.
        row: packed numbers.
        samples: numbers of a pixel.
        kind: of numbers; 1 unsigned, 2 signed, 3 floating.
        extra: what the last number is; 1 and 2 are alpha, multiplied already or not.
        orientation: as in EXIF.
    """
    offset = 8 + len(row)
    entries = [(256, width), (257, 1), (259, 1), (262, photometric), (273, 8), (274, orientation)]
    entries += [(277, samples), (278, 1), (279, len(row))]
    entries += [(338, extra)] if extra else []
    directory = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries]
    for tag, value in ((258, bits), (339, kind)):
        stored = struct.pack(f"<{samples}H", *[value] * samples)
        where = stored.ljust(4, b"\0") if samples < 3 else struct.pack("<I", offset)
        directory.append(struct.pack("<HHI", tag, 3, samples) + where)
        if samples >= 3:
            offset += len(stored)
            row += stored
    directory.sort(key=lambda entry: struct.unpack("<H", entry[:2]))
    start = struct.pack("<I", 8 + len(row))
    count = struct.pack("<H", len(directory))
    return b"II*\0" + start + row + count + b"".join(directory) + bytes(4)
