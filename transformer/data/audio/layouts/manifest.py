"""A manifest: JSON lines, each with the path of a recording and what is said in it.

{"audio": "monday/0001.flac", "text": "what is said"}

Names of NeMo's manifests are read, too: `audio_filepath`, `offset` and `duration` in seconds.
"""

from pathlib import Path

from transformer.data.audio.files import Utterance
from transformer.data.audio.parts import Layout, Parts, file_inside, in_files
from transformer.data.reading.json_text import json_lines, kind_of
from transformer.errors import DataError
from transformer.types import Json

_NAMES = ("audio", "audio_filepath")
_KNOWN = (*_NAMES, "text", "offset", "duration")


def _read(path: Path) -> Parts | None:
    if path.is_dir() or not path.name.lower().endswith((".jsonl", ".json", ".jsonl.gz")):
        return None
    found, unread = [], {}
    for where, row in json_lines(path, "'audio' and 'text'"):
        found.append(_utterance(path.parent, row, where))
        unread |= dict.fromkeys(key for key in row if key not in _KNOWN)
    notes = (f"{path}: the keys {', '.join(unread)} are not used.",) if unread else ()
    return Parts(str(path), {"train": in_files(found)}, notes)


def _utterance(folder: Path, row: Json, where: str) -> Utterance:
    """One line.

    Raises:
        DataError: names the line and what is wrong in it.
    """
    name = next((key for key in _NAMES if key in row), "audio")
    for key in (name, "text"):
        if key not in row:
            raise DataError(f"{where} lacks {key!r}: it has {', '.join(row) or 'nothing'}.")
        if not isinstance(row[key], str):
            raise DataError(f"{where} has {kind_of(row[key])} for {key!r}: expected a string.")
    if not row[name]:
        raise DataError(f"{where} has an empty {name!r}: give the path of a recording.")
    offset, duration = (_seconds(row, key, where) for key in ("offset", "duration"))
    path = file_inside(folder, row[name], where)
    text = " ".join(row["text"].split())
    if offset is None:
        # The length of the whole file, which its header says as well.
        return Utterance(where, path, text)
    return Utterance(where, path, text, offset, None if duration is None else offset + duration)


def _seconds(row: Json, key: str, where: str) -> float | None:
    value = row.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise DataError(f"{where} has {value!r} for {key!r}: expected seconds, 0 or more.")
    return float(value)


LAYOUT = Layout("a manifest, a .jsonl file of lines with 'audio' and 'text'", _read)
