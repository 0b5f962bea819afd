"""Sounds as files: WAV, FLAC or Ogg, by the ending."""

import io
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from transformer.errors import ConfigError, MissingDependencyError
from transformer.files import write_bytes

# The format and the encoding of each ending.
FORMATS = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "VORBIS")}


def require_sound_file(path: Path, flag: str) -> None:
    """Refuses a path whose ending names no format.

    Args:
        path: the path.
        flag: the flag that gives it.

    Raises:
        ConfigError: naming the endings.
    """
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"{flag} is {path}: give a name that ends with {', '.join(FORMATS)}.")


def save_sound(path: Path, samples: Float32[np.ndarray, " n"], rate: int) -> None:
    """Writes a sound; a file that is there is replaced.

    Args:
        path: one that `require_sound_file` allows.
        samples: from -1 to 1.
        rate: samples a second.

    Raises:
        MissingDependencyError: if soundfile is not installed.
        OSError: if it cannot be written; an old file is kept.
    """
    try:
        import soundfile
    except ImportError:
        raise MissingDependencyError("soundfile", "speech", "writing sounds") from None
    kind, encoding = FORMATS[path.suffix.lower()]
    content = io.BytesIO()
    soundfile.write(content, samples, rate, format=kind, subtype=encoding)
    write_bytes(path, content.getvalue())
