"""Synthetic input files, as large as the rows need and the same in every run."""

from pathlib import Path

import numpy as np

# The first Chinese character in Unicode: a row gets as many one-character tokens as it needs.
_FIRST_CHARACTER = 0x4E00


def write_inputs(folder: Path, tiny: bool) -> None:
    """Writes the files that the configs in `rows` name.

    Args:
        folder: an existing folder for `characters.txt`, pairs of `source*.txt` and `target*.txt`,
            `documents.txt` and `images.npz`.
        tiny: whether to use the small sizes for a CPU.
    """
    random = np.random.default_rng(0)
    vocabulary, length = (200, 20_000) if tiny else (20_000, 1_500_000)
    places = _FIRST_CHARACTER + random.integers(vocabulary, size=length, dtype=np.uint32)
    (folder / "characters.txt").write_text(places.tobytes().decode("utf-32-le"), "utf-8")

    words = _words(random, 300 if tiny else 8_000)
    shortest, longest, count = (3, 8, 400) if tiny else (6, 24, 8_000)
    for name, lines in (("", count), ("_held_out", 20)):
        for side in ("source", "target"):
            lengths = random.integers(shortest, longest, size=lines)
            _write_lines(folder / f"{side}{name}.txt", words, lengths, random)
    _write_lines(folder / "documents.txt", words, np.full(count, longest), random, document=20)

    size, images = (32, 40) if tiny else (224, 300)
    np.savez(
        folder / "images.npz",
        images=random.integers(256, size=(images, size, size, 3), dtype=np.uint8),
        labels=np.arange(images) % 10,
    )


def _words(random: np.random.Generator, count: int) -> np.ndarray:
    """Different words of 3 to 9 letters."""
    letters = random.integers(ord("a"), ord("z") + 1, size=(count * 2, 9), dtype=np.uint8)
    lengths = random.integers(3, 10, size=count * 2)
    words = dict.fromkeys(
        bytes(row[:length]).decode() for row, length in zip(letters, lengths, strict=True)
    )
    return np.array(list(words)[:count])


def _write_lines(
    path: Path,
    words: np.ndarray,
    lengths: np.ndarray,
    random: np.random.Generator,
    *,
    document: int = 0,
) -> None:
    """Writes lines with given numbers of words; a blank line ends every `document` lines."""
    chosen = words[random.integers(len(words), size=int(lengths.sum()))]
    lines = [" ".join(part) for part in np.split(chosen, np.cumsum(lengths)[:-1])]
    if document:
        starts = range(0, len(lines), document)
        lines = [line for at in starts for line in (*lines[at : at + document], "")]
    path.write_text("\n".join(lines) + "\n", "utf-8")
