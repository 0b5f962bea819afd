"""Recordings as samples: any sampling rate, any number of channels, WAV, FLAC, Ogg, MP3.

libsndfile decodes and soxr resamples, both a few seconds at a time. So a recording of hours takes
the memory of what is asked for, and reading it in parts gives the same samples as reading it whole.
"""

import contextlib
import os
import stat
from collections.abc import Generator, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float32

from transformer.errors import DataError, MissingDependencyError

if TYPE_CHECKING:
    import soundfile

Samples = Float32[np.ndarray, " n"]

# Endings of the files that folders are searched for, in any case. The content decides the format.
ENDINGS = frozenset([".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au"])
# The formats of libsndfile that are read. The others are rare, and their decoders little tested.
_FORMATS = ("WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF", "NIST")
_READABLE = "WAV, FLAC, Ogg, MP3, AIFF, AU, CAF or NIST"
# Telephones have 8,000 samples a second and studios 192,000. A header that claims far less would
# make a small file expand without limit.
LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000
# What is decoded at a time: seconds, and at most so many numbers over all channels.
_BLOCK_SECONDS, _BLOCK_NUMBERS = 10, 1 << 22
# Seconds of a recording that `read_audio` puts into memory: 12 hours are 2.8 GB at 16 kHz.
MOST_SECONDS = 12 * 3600.0
# Samples lie in [-1, 1]; loud ones in float files somewhat beyond. A square of this fits float32.
_LARGEST = 1e6
# Sizes in the headers of WAV files that were written to a pipe, so that nobody knew the size.
_UNKNOWN_SIZES = (0, 0x7FFFFFFF, 0xFFFFFFFF)
# libsndfile's error for a file of a format that it does not know.
_NOT_KNOWN = 1
# Bytes of tags that may lie behind the sound of an MP3.
_TAGS = 1 << 14
# A page of Ogg has at most so many bytes; its flag at byte 5 says whether the stream ends with it.
_OGG_PAGE, _OGG_FLAGS, _OGG_END = 65_307, 5, 4


class Header(NamedTuple):
    """What a file says about its recording.

    Attributes:
        sampling_rate: samples a second.
        channels: the number of channels.
        seconds: the length; None if the file does not say it.
    """

    sampling_rate: int
    channels: int
    seconds: float | None


def read_header(path: str | Path) -> Header:
    """The rate, channels and length of a recording; no sample is decoded.

    Raises:
        DataError: if the file is missing, or no recording that can be read.
        MissingDependencyError: if soundfile is not installed.
    """
    path = Path(path)
    with _opened(path) as (file, _):
        return _header(file)


def read_audio(
    path: str | Path,
    sampling_rate: int,
    *,
    start: float = 0.0,
    end: float | None = None,
    most_seconds: float = MOST_SECONDS,
) -> Samples:
    """A recording, or a part of one. Channels are averaged.

    Args:
        path: the file.
        sampling_rate: the wanted samples a second.
        start: where the part begins, in seconds.
        end: where it ends, in seconds; None takes all that follows.
        most_seconds: longer recordings are refused.

    Raises:
        DataError: if it is missing, damaged, truncated, empty or too long, no recording at all, or
            has samples that are no numbers.
        MissingDependencyError: if soundfile or soxr is not installed.
    """
    found, count = [], 0
    for block in audio_blocks(path, sampling_rate, start=start, end=end):
        found.append(block)
        count += len(block)
        if count > most_seconds * sampling_rate:
            raise DataError(
                f"{path} is longer than {most_seconds:g} seconds: cut it into shorter recordings."
            )
    return np.concatenate(found)


def audio_blocks(
    path: str | Path, sampling_rate: int, *, start: float = 0.0, end: float | None = None
) -> Generator[Samples, None, None]:
    """A recording as blocks of some ten seconds, in order; for the arguments see `read_audio`.

    Raises:
        DataError: see `read_audio`; blocks before the damage come first.
        MissingDependencyError: if soundfile or soxr is not installed.
    """
    path = Path(path)
    with _opened(path) as (file, handle):
        first = round(start * file.samplerate)
        last = None if end is None else round(end * file.samplerate)
        blocks = _mono(file, handle, path, first, last)
        if file.samplerate != sampling_rate:
            blocks = _resampled(blocks, file.samplerate, sampling_rate)
        yield from blocks


class OpenRecording:
    """A recording from which windows are taken in order; it keeps no more than it needs.

    Windows may overlap, but none begins before the one before it. Use it in a `with` statement.
    """

    def __init__(self, path: str | Path, sampling_rate: int) -> None:
        """Opens the file.

        Args:
            path: the file.
            sampling_rate: the wanted samples a second.

        Raises:
            DataError: if it is missing, or no recording that can be read.
            MissingDependencyError: if soundfile or soxr is not installed.
        """
        self.path, self.sampling_rate = Path(path), sampling_rate
        # As the file says; None if it does not.
        self.seconds = read_header(path).seconds
        self._blocks = audio_blocks(path, sampling_rate)
        # Samples from `_start` on, and whether no more will come.
        self._kept: Samples = np.zeros(0, np.float32)
        self._start, self._at_end = 0, False

    def __enter__(self) -> "OpenRecording":
        return self

    def __exit__(self, *_: object) -> None:
        # Also closes the file.
        self._blocks.close()

    def window(self, start: int, count: int) -> Samples:
        """Samples from a place on.

        Args:
            start: the first sample, at least the start of the last window.
            count: how many; fewer come only where the recording ends, and none behind its end.

        Raises:
            DataError: if the file is damaged in this window or before it; see `read_audio`.
            ValueError: if the window begins before the last one.
        """
        if start < self._start:
            raise ValueError(f"a window at {start} begins before the last one, at {self._start}")
        kept, place = [self._kept], self._start
        end = place + len(self._kept)
        while end < start + count and not self._at_end:
            block = next(self._blocks, None)
            if block is None:
                self._at_end = True
                break
            if end <= start:
                # Nothing of what is kept is needed.
                kept, place = [], end
            kept.append(block)
            end += len(block)
        samples = np.concatenate(kept)[start - place :] if kept else self._kept[:0]
        # A copy, or the whole block would stay in memory.
        self._kept, self._start = samples.copy(), start
        return self._kept[:count]


def require_soundfile() -> ModuleType:
    """The module `soundfile`.

    Raises:
        MissingDependencyError: if it is not installed.
    """
    try:
        import soundfile
    except ImportError:
        raise MissingDependencyError("soundfile", "speech", "reading recordings") from None
    return soundfile


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple["soundfile.SoundFile", int]]:
    """Opens a file, also as its number; inside `with`, errors of libsndfile become errors of ours.

    Raises:
        DataError: if it cannot be read.
    """
    library = require_soundfile()
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist: give the path of a recording.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    try:
        state = os.fstat(handle)
        if not stat.S_ISREG(state.st_mode):
            kind = "a folder" if stat.S_ISDIR(state.st_mode) else "no file but a device or a pipe"
            raise DataError(f"{path} is {kind}: give the path of a recording.")
        if not state.st_size:
            raise DataError(f"{path} is empty: it holds no recording.")
        # By its number, because of a path the library believes the ending, and opens other files.
        with library.SoundFile(handle, closefd=False) as file:
            _require_usable(file, path)
            _require_end(handle, state.st_size, file.format, path)
            yield file, handle
    except library.LibsndfileError as error:
        if error.code == _NOT_KNOWN:
            raise DataError(
                f"{path} is no recording: its content is none of {_READABLE}. Convert it, for "
                f"example with: ffmpeg -i {path.name} recording.flac"
            ) from None
        reason = str(error.error_string).strip().rstrip(".")
        raise DataError(
            f"{path} is damaged or truncated (libsndfile says: {reason}). Get it again, or leave "
            f"it out."
        ) from None
    finally:
        os.close(handle)


def _require_usable(file: "soundfile.SoundFile", path: Path) -> None:
    """Refuses formats, rates and counts of channels that are not read."""
    if file.format not in _FORMATS:
        raise DataError(f"{path} has the format {file.format_info}: give {_READABLE}.")
    if not LOWEST_RATE <= file.samplerate <= HIGHEST_RATE:
        raise DataError(
            f"{path} has {file.samplerate:,} samples a second: from {LOWEST_RATE:,} to "
            f"{HIGHEST_RATE:,} are read."
        )


def _header(file: "soundfile.SoundFile") -> Header:
    # Of a stream without a length, libsndfile gives the largest number that it has.
    known = file.frames < 1 << 62
    return Header(file.samplerate, file.channels, file.frames / file.samplerate if known else None)


def _require_end(handle: int, size: int, name: str, path: Path) -> None:
    """Refuses WAV and Ogg files whose end is missing, which libsndfile reads as far as they go."""
    missing = 0
    if name in ("WAV", "WAVEX"):
        missing = _missing_of_wav(handle, size)
    elif name == "OGG":
        tail = os.pread(handle, _OGG_PAGE, max(0, size - _OGG_PAGE))
        page = tail.rfind(b"OggS")
        ends = page >= 0 and bool(tail[page + _OGG_FLAGS : page + _OGG_FLAGS + 1])
        missing = not (ends and tail[page + _OGG_FLAGS] & _OGG_END)
    if missing:
        raise DataError(f"{path} is truncated: its end is missing. Get it again, or leave it out.")


def _missing_of_wav(handle: int, size: int) -> int:
    """The bytes that the chunk of samples lacks, 0 if it is whole or does not know its size."""
    place = 12
    # The chunks of metadata are few.
    for _ in range(1000):
        chunk = os.pread(handle, 8, place)
        if len(chunk) < 8:
            break
        length = int.from_bytes(chunk[4:], "little")
        place += 8
        if chunk[:4] == b"data":
            return 0 if length in _UNKNOWN_SIZES else max(0, place + length - size)
        # Chunks begin at even places.
        place += length + length % 2
    return 0


def _mono(
    file: "soundfile.SoundFile", handle: int, path: Path, first: int, last: int | None
) -> Iterator[Samples]:
    """The mean of all channels, block by block, from one frame to another (None for the end).

    Raises:
        DataError: if there are no samples, fewer than the file says, or some that are no numbers.
    """
    rate = file.samplerate
    frames = max(1, min(_BLOCK_SECONDS * rate, _BLOCK_NUMBERS // file.channels))
    place = first
    if first:
        _require_inside(file, path, first)
        file.seek(first)
    while last is None or place < last:
        count = frames if last is None else min(frames, last - place)
        block = file.read(count, dtype="float32", always_2d=True)
        if not len(block):
            break
        _require_numbers(block, path, place, rate)
        place += len(block)
        yield block[:, 0] if file.channels == 1 else block.mean(axis=1, dtype=np.float32)
    if place == first:
        raise DataError(f"{path} has no samples: the recording is empty.")
    if last is None or place < last:
        _require_whole(file, handle, path, place, last)


def _require_inside(file: "soundfile.SoundFile", path: Path, first: int) -> None:
    seconds = _header(file).seconds
    if seconds is not None and first >= round(seconds * file.samplerate):
        raise DataError(
            f"{path} has {seconds:.2f} seconds, and a part of it is to begin at "
            f"{first / file.samplerate:.2f}."
        )


def _require_numbers(block: np.ndarray, path: Path, place: int, rate: int) -> None:
    """Refuses NaN and infinite samples, and such that overflow when they are squared."""
    # Comparisons with NaN are false.
    bad = ~(np.abs(block) <= _LARGEST).all(axis=1)
    if bad.any():
        frame = int(bad.argmax())
        value = next(value for value in block[frame] if not abs(value) <= _LARGEST)
        raise DataError(
            f"{path} has the sample {value} at {(place + frame) / rate:.3f} seconds: samples are "
            f"numbers from -1 to 1."
        )


def _require_whole(
    file: "soundfile.SoundFile", handle: int, path: Path, place: int, wanted: int | None
) -> None:
    """Refuses a file that ends before it should.

    Args:
        file: the file, read to its end.
        handle: its number.
        path: its path.
        place: the frame at which it ends.
        wanted: the frame to which it was to be read; None for its end.
    """
    rate, seconds = file.samplerate, _header(file).seconds
    known = None if seconds is None else round(seconds * rate)
    if known is not None and place < known:
        raise DataError(
            f"{path} is truncated: it announces {seconds:.2f} seconds and ends after "
            f"{place / rate:.2f}. Get it again, or leave it out."
        )
    # Of an MP3 whose bit rate varies and that does not say its length, libsndfile guesses the
    # length from the first frame, and reads no further.
    size = os.fstat(handle).st_size
    left = size - os.lseek(handle, 0, os.SEEK_CUR)
    if file.format == "MP3" and left > max(_TAGS, size // 20):
        raise DataError(
            f"{path} is an MP3 that does not say its length: after {place / rate:.2f} seconds "
            f"{left:,} bytes are left that cannot be read. Convert it, for example with: "
            f"ffmpeg -i {path.name} recording.flac"
        )
    if wanted is not None:
        raise DataError(
            f"{path} has {place / rate:.2f} seconds, and a part of it is to end at "
            f"{wanted / rate:.2f}."
        )


def _resampled(blocks: Iterator[Samples], rate: int, wanted: int) -> Iterator[Samples]:
    """Blocks at another rate; the same samples whatever the size of the blocks."""
    try:
        import soxr
    except ImportError:
        raise MissingDependencyError("soxr", "speech", "changing the sampling rate") from None
    stream = soxr.ResampleStream(rate, wanted, 1, dtype="float32")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)
