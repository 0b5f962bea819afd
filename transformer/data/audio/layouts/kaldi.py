"""Kaldi's data folders (https://kaldi-asr.org/doc/data_prep.html).

`wav.scp` names a file for each recording, `text` says what is said in each utterance, and
`segments` which part of which recording an utterance is; without it, utterances are recordings.
"""

from collections.abc import Iterator
from pathlib import Path

from transformer.data.audio.files import Utterance
from transformer.data.audio.parts import Layout, Parts, file_inside, folders_of_parts, in_files
from transformer.data.reading.text import read_text
from transformer.errors import DataError

_FILES, _TEXTS, _SEGMENTS = "wav.scp", "text", "segments"


def _read(path: Path) -> Parts | None:
    if not path.is_dir():
        return None
    folders = {"train": path} if (path / _FILES).is_file() else folders_of_parts(path)
    folders = {part: folder for part, folder in folders.items() if (folder / _FILES).is_file()}
    if not folders:
        return None
    notes: list[str] = []
    parts = {part: in_files(_utterances(folder, notes)) for part, folder in folders.items()}
    return Parts(str(path), parts, tuple(notes))


def _utterances(folder: Path, notes: list[str]) -> list[Utterance]:
    """The utterances of one data folder, in the order of `text`.

    Raises:
        DataError: if a line cannot be used; names it.
    """
    files = {name: (where, rest) for where, name, rest in _lines(folder / _FILES)}
    segments = {}
    if (folder / _SEGMENTS).is_file():
        segments = {name: (where, rest) for where, name, rest in _lines(folder / _SEGMENTS)}
    found, unsaid = [], set(segments or files)
    for where, name, text in _lines(folder / _TEXTS):
        recording, start, end = name, 0.0, None
        if segments:
            if name not in segments:
                raise DataError(f"{where} has the utterance {name}, which segments lacks.")
            recording, start, end = _segment(*segments[name])
        if recording not in files:
            raise DataError(f"{where} has the utterance {name}, and wav.scp lacks {recording}.")
        found.append(Utterance(where, _file(folder, *files[recording]), text, start, end))
        unsaid.discard(name)
    if unsaid:
        notes.append(f"{folder}: {len(unsaid):,} utterances without a text are left out.")
    return found


def _lines(path: Path) -> Iterator[tuple[str, str, str]]:
    """The lines of a table: the place, the first word and the rest.

    Raises:
        DataError: if the file is missing, or has a name twice.
    """
    seen = set()
    for number, line in enumerate(read_text(path).split("\n"), 1):
        name, _, rest = line.strip().partition(" ")
        if not name:
            continue
        if name in seen:
            raise DataError(f"{path}, line {number} has {name} for the second time.")
        seen.add(name)
        yield f"{path}, line {number}", name, rest.strip()


def _segment(where: str, line: str) -> tuple[str, float, float | None]:
    """The recording, the start and the end in seconds; an end of -1 is that of the recording."""
    try:
        recording, start, end = line.split()
        return recording, float(start), None if float(end) == -1 else float(end)
    except ValueError:
        raise DataError(
            f"{where} has {line!r}: expected a recording, a start and an end in seconds."
        ) from None


def _file(folder: Path, where: str, name: str) -> Path:
    if name.endswith("|"):
        raise DataError(
            f"{where} has a command, which is not run: {name[:60]!r}. Write the recordings to "
            f"files, and name these."
        )
    return file_inside(folder, name, where)


LAYOUT = Layout("a data folder of Kaldi (wav.scp, text and perhaps segments)", _read)
