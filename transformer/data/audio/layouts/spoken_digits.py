"""The Free Spoken Digit Dataset in a `.npz` file of its samples.

`samples` int16 at 8 kHz one recording after another, `lengths`, and `names` as DIGIT_SPEAKER_TAKE.
As its authors split it, takes 0 to 4 of each digit and speaker are for test.
https://github.com/Jakobovski/free-spoken-digit-dataset
"""

import functools
import re
from pathlib import Path

import numpy as np

from transformer.data.audio.layouts.arrays import held
from transformer.data.audio.parts import Layout, Parts
from transformer.data.audio.transcribed import HeldRecordings
from transformer.data.reading.npz import npz_array, opened_npz
from transformer.errors import DataError

_KEYS = ("samples", "lengths", "names")
_RATE = 8000
_TEST_TAKES = 5
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_NAME = re.compile(r"(\d)_([^_]+)_(\d+)")


def _read(path: Path) -> Parts | None:
    if path.is_dir() or path.suffix.lower() != ".npz":
        return None
    with opened_npz(path, "recordings") as arrays:
        if not set(_KEYS) <= set(arrays.files):
            return None
    parts = {"train": False, "test": True}
    read = {part: functools.partial(_recordings, path, test) for part, test in parts.items()}
    return Parts(str(path), read)


def _recordings(path: Path, test: bool, wanted: int) -> HeldRecordings:
    samples, lengths, names = (
        npz_array(path, key, "recordings", "Put all samples into one array.") for key in _KEYS
    )
    found = [_NAME.fullmatch(str(name)) for name in names]
    if None in found or lengths.shape != names.shape:
        raise DataError(f"{path} needs a length and a name for each recording, as 7_jackson_32.")
    kept = np.array([(int(name[3]) < _TEST_TAKES) == test for name in found], bool)
    if lengths.sum(dtype=np.int64) != len(samples):
        raise DataError(f"{path}: its lengths do not add up to its {len(samples):,} samples.")
    chosen = samples[np.repeat(kept, lengths)]
    texts = np.array([_WORDS[int(name[1])] for name in found])
    where = f"{path} ({'test' if test else 'train'})"
    shown = [f"{path}: {name}" for name in names[kept]]
    return held(where, shown, chosen, lengths[kept], texts[kept], _RATE, wanted)


LAYOUT = Layout("a .npz file of spoken digits with samples, lengths and names", _read)
