"""Recordings, or vectors computed from them, in the arrays of a `.npz` file.

`train_x` has the frames of all utterances one after another, `[n, M]`, or all samples, `[n]` int16;
`train_n` the frames or samples of each, `train_t` what is said in each. So it is with `validation_`
and `test_`. Samples need `sampling_rate`, a single number.
"""

import functools
from pathlib import Path

import numpy as np

from transformer.data.audio.files import resampled_length
from transformer.data.audio.parts import Layout, Parts
from transformer.data.audio.transcribed import HeldRecordings
from transformer.data.reading.npz import npz_array, opened_npz
from transformer.errors import DataError, MissingDependencyError

_PARTS = ("train", "validation", "test")
_RATE = "sampling_rate"
_WHAT = "recordings"
_INSTEAD = "Put all utterances into one array, one after another."


def _read(path: Path) -> Parts | None:
    if path.is_dir() or path.suffix.lower() != ".npz":
        return None
    with opened_npz(path, _WHAT) as arrays:
        there = set(arrays.files)
    parts = [part for part in _PARTS if f"{part}_x" in there]
    if not parts:
        return None
    rate = None
    if _RATE in there:
        rate = npz_array(path, _RATE, _WHAT, _INSTEAD).tolist()
        if type(rate) is not int or rate <= 0:
            raise DataError(f"{path}: {_RATE} is {rate!r}, and a whole number is expected.")
    return Parts(
        str(path), {part: functools.partial(_recordings, path, part, rate) for part in parts}
    )


def _recordings(path: Path, part: str, rate: int | None, wanted: int) -> HeldRecordings:
    values, lengths, texts = (
        npz_array(path, f"{part}_{what}", _WHAT, _INSTEAD) for what in ("x", "n", "t")
    )
    names = [f"{path} ({part} {index + 1})" for index in range(len(texts))]
    return held(f"{path}: {part}", names, values, lengths, texts, rate, wanted)


def held(
    where: str,
    names: list[str],
    values: np.ndarray,
    lengths: np.ndarray,
    texts: np.ndarray,
    rate: int | None,
    wanted: int,
) -> HeldRecordings:
    """Recordings from arrays.

    Args:
        where: the arrays, for messages.
        names: what each recording is, for messages.
        values: samples or frames, one utterance after another.
        lengths: samples or frames of each.
        texts: what is said in each.
        rate: samples a second; None if there are frames.
        wanted: the wanted samples a second.

    Raises:
        DataError: if the arrays do not fit, or hold something else.
    """
    if texts.dtype.kind != "U" or lengths.dtype.kind not in "iu" or texts.shape != lengths.shape:
        raise DataError(f"{where} needs a text and a length for each utterance.")
    frames = values.ndim == 2 and values.dtype.kind == "f"
    if not frames and not (values.ndim == 1 and values.dtype == np.int16):
        raise DataError(
            f"{where} has {values.dtype} of {values.ndim} axes: expected frames, fractions [n, M], "
            f"or samples, int16 [n]."
        )
    if lengths.ndim != 1 or (lengths < 1).any() or lengths.sum(dtype=np.int64) != len(values):
        raise DataError(
            f"{where} has {len(values):,} frames or samples, and its lengths do not add up to that."
        )
    if frames and not np.isfinite(values).all():
        raise DataError(f"{where} has frames with NaN or infinite numbers.")
    if not frames and rate is None:
        raise DataError(f"{where} has samples, and the file lacks their {_RATE}: add it.")
    lengths = lengths.astype(np.int64)
    if not frames and rate != wanted:
        values, lengths = _resampled(values, lengths, rate, wanted)
    return HeldRecordings(names, [str(text) for text in texts], lengths, values)


def _resampled(
    values: np.ndarray, lengths: np.ndarray, rate: int, wanted: int
) -> tuple[np.ndarray, np.ndarray]:
    """All recordings at another rate."""
    try:
        import soxr
    except ImportError:
        raise MissingDependencyError("soxr", "speech", "changing the sampling rate") from None
    new = np.array([resampled_length(int(length), rate, wanted) for length in lengths], np.int64)
    found = np.zeros(new.sum(), np.int16)
    ends, new_ends = lengths.cumsum(), new.cumsum()
    for length, end, new_length, new_end in zip(lengths, ends, new, new_ends, strict=True):
        # Of integers, soxr makes other integers each time: it adds noise without a seed.
        samples = soxr.resample(values[end - length : end].astype(np.float32), rate, wanted)
        rounded = np.clip(np.round(samples[:new_length]), -32768, 32767)
        found[new_end - new_length : new_end] = rounded
    return found, new


LAYOUT = Layout("a .npz file with train_x, train_n and train_t", _read)
