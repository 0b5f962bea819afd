"""LibriSpeech (Panayotov et al. 2015) and corpora made like it.

`PART/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt` has a line for each utterance, its name and what is
said; the recordings are beside it. Folders `train-*` are for training, `dev-*` for validation.
"""

from pathlib import Path

from transformer.data.audio.files import Utterance
from transformer.data.audio.parts import Layout, Parts, in_files, sub_folders
from transformer.data.audio.reading import ENDINGS
from transformer.data.reading.text import read_text
from transformer.errors import DataError

_ENDING = ".trans.txt"
_PREFIXES = {"train": "train", "dev": "validation", "test": "test"}


def _read(path: Path) -> Parts | None:
    if not path.is_dir():
        return None
    below = {folder: _transcripts(folder) for folder in sub_folders(path)}
    parts: dict[str, list[Path]] = {}
    for folder, files in below.items():
        part = _PREFIXES.get(folder.name.split("-")[0])
        if files and part is not None:
            parts.setdefault(part, []).extend(files)
    if not parts:
        # A single part, or a part of a part.
        files = [*path.glob(f"*{_ENDING}"), *(file for files in below.values() for file in files)]
        parts = {"train": files} if files else {}
    if not parts:
        return None
    utterances = {
        part: [found for file in files for found in _utterances(file)]
        for part, files in parts.items()
    }
    return Parts(str(path), {part: in_files(found) for part, found in utterances.items()})


def _transcripts(folder: Path) -> list[Path]:
    """The lists of utterances of a part, a speaker or a chapter."""
    return sorted(
        file for depth in ("", "*/", "*/*/") for file in folder.glob(f"{depth}*{_ENDING}")
    )


def _utterances(file: Path) -> list[Utterance]:
    """The utterances of a chapter.

    Raises:
        DataError: if a recording is missing; names the line.
    """
    found = []
    for number, line in enumerate(read_text(file).split("\n"), 1):
        if not line.strip():
            continue
        name, _, text = line.strip().partition(" ")
        where = f"{file}, line {number}"
        if Path(name).name != name or "\0" in name:
            raise DataError(f"{where} names {name!r}, which is no file beside it.")
        paths = [file.with_name(name + ending) for ending in sorted(ENDINGS)]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            raise DataError(f"{where} names {name}, and there is no {name}.flac beside it.")
        found.append(Utterance(where, path, text.strip()))
    return found


LAYOUT = Layout(
    "LibriSpeech (train-clean-100, dev-clean, ... with *.trans.txt beside the recordings)", _read
)
