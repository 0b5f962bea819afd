"""Speaks with eSpeak NG, as a program: requests on stdin, samples on stdout.

The library keeps its random numbers and phases from one text to the next. So all texts are spoken
in order by a process of their own, and the same requests give the same samples.
"""

import ctypes
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Int16

from transformer.data.embedded.packages import package_folder
from transformer.errors import DataError, MissingDependencyError

# Samples a second of all voices.
RATE = 22_050
PACKAGE = "espeakng_loader"

# Of the library's header, speak_lib.h: synthesis within the call, no exit on errors, characters are
# UTF-8, and two parameters.
_SYNCHRONOUS, _DONT_EXIT, _UTF8, _SPEED, _PITCH = 2, 0x8000, 1, 1, 3
# A text as long as this is no digit string.
_MOST_SAMPLES = 60 * RATE


class Request(NamedTuple):
    """What one recording shall be.

    Attributes:
        text: words, as they are read.
        accent: a voice of eSpeak.
        variant: changes the voice; the name of a file in the library's data.
        pitch: from 0 to 99.
        speed: words a minute.
    """

    text: str
    accent: str
    variant: str
    pitch: int
    speed: int


def spoken(requests: Sequence[Request]) -> Iterator[Int16[np.ndarray, " _"]]:
    """Yields the samples of each request, in order; all begin from the same state.

    Raises:
        MissingDependencyError: if the package `espeakng-loader` is not installed.
        DataError: if the library cannot be used.
    """
    if package_folder(PACKAGE) is None:
        raise MissingDependencyError("espeakng-loader", "speech", "synthetic voices")
    command = [sys.executable, "-m", "transformer.data.embedded.speaking"]
    # The package is found there even if it is not installed.
    folder = Path(__file__).parents[3]
    with subprocess.Popen(
        command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            process.stdin.write(json.dumps(requests).encode())
            process.stdin.close()
            for _ in requests:
                length = process.stdout.read(4)
                content = process.stdout.read(2 * int.from_bytes(length, "little"))
                if not content:
                    raise DataError(
                        f"the library of espeakng-loader does not speak: "
                        f"{process.stderr.read().decode(errors='replace').strip()[-300:]} "
                        f"Install the package again."
                    )
                yield np.frombuffer(content, np.int16)
        finally:
            process.kill()


def main() -> int:
    """Speaks the requests that are on stdin."""
    import espeakng_loader

    data = Path(espeakng_loader.get_data_path())
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    chunks: list[np.ndarray] = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    def keep(samples, count: int, events) -> int:
        if samples and count > 0:
            chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    library.espeak_Synth.argtypes = (
        *(ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int),
        *(ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p),
    )
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, str(data).encode(), _DONT_EXIT)
    if rate != RATE:
        sys.exit(f"its sampling rate is {rate}, not {RATE}.")
    library.espeak_SetSynthCallback(keep)
    # Otherwise the library takes the time as its seed.
    library.espeak_ng_SetRandSeed(ctypes.c_long(0))
    for request in (Request(*each) for each in json.load(sys.stdin)):
        chunks.clear()
        # The library takes an unknown variant for none.
        if not (data / "voices" / "!v" / request.variant).is_file():
            sys.exit(f"it has no variant {request.variant}.")
        if library.espeak_SetVoiceByName(f"{request.accent}+{request.variant}".encode()):
            sys.exit(f"it has no voice {request.accent}.")
        library.espeak_SetParameter(_SPEED, request.speed, 0)
        library.espeak_SetParameter(_PITCH, request.pitch, 0)
        text = request.text.encode()
        library.espeak_Synth(text, len(text) + 1, 0, 1, 0, _UTF8, None, None)
        _write(sys.stdout.buffer, np.concatenate(chunks)[:_MOST_SAMPLES])
    return 0


def _write(file: BinaryIO, samples: Int16[np.ndarray, " _"]) -> None:
    file.write(len(samples).to_bytes(4, "little") + samples.astype("<i2").tobytes())


if __name__ == "__main__":
    sys.exit(main())
