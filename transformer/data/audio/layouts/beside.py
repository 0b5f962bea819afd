"""A folder of recordings, each with its transcript beside it: `a.flac` and `a.txt`."""

from pathlib import Path

from transformer.data.audio.files import Utterance
from transformer.data.audio.parts import Layout, Parts, files_below, folders_of_parts, in_files
from transformer.data.audio.reading import ENDINGS
from transformer.data.reading.text import read_text
from transformer.errors import DataError


def _read(path: Path) -> Parts | None:
    """The parts of a folder; all is for training if it has no folders of parts."""
    if not path.is_dir():
        return None
    folders = folders_of_parts(path) or {"train": path}
    files = {part: list(files_below(folder)) for part, folder in folders.items()}
    if not any(_has_transcripts(found) for found in files.values()):
        return None
    return Parts(str(path), {part: in_files(_utterances(found)) for part, found in files.items()})


def _has_transcripts(files: list[Path]) -> bool:
    """Whether at least one recording has its transcript beside it."""
    texts = {path.with_suffix("") for path in files if path.suffix == ".txt"}
    return any(_is_recording(path) and path.with_suffix("") in texts for path in files)


def _is_recording(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS


def _utterances(files: list[Path]) -> list[Utterance]:
    """All recordings with their transcripts.

    Raises:
        DataError: if a recording has no transcript, or a transcript no recording.
    """
    recordings = [path for path in files if _is_recording(path)]
    texts = {path.with_suffix("") for path in files if path.suffix == ".txt"}
    lonely = texts - {path.with_suffix("") for path in recordings}
    if lonely:
        raise DataError(
            f"{min(lonely)}.txt has no recording beside it (the same name with "
            f"{', '.join(sorted(ENDINGS))}): add it, or remove the text."
        )
    found = []
    for path in recordings:
        if path.with_suffix("") not in texts:
            raise DataError(
                f"{path} has no transcript beside it, {path.with_suffix('.txt').name}: add it, or "
                f"remove the recording."
            )
        text = " ".join(read_text(path.with_suffix(".txt"), may_be_empty=True).split())
        found.append(Utterance(str(path), path, text))
    return found


LAYOUT = Layout(
    "a folder of recordings, each with its transcript in a text file of the same name beside it, "
    "with or without folders train and val, dev or test above them",
    _read,
)
