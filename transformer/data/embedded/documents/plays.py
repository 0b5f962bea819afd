"""Shakespeare's scenes, one document each, whole plays held out."""

import itertools
from collections.abc import Iterable

from transformer.data.embedded.plays import Play, plays


def read() -> tuple[list[list[str]], list[list[str]]]:
    """Shakespeare's scenes, one document each: of the plays to train on and of the held-out ones.

    A sentence is a line of the play. Most sentences of verse end within a line, but lines are of
    even length and so waste little of a context, whereas a speech may be longer than one.

    Raises:
        MissingDependencyError: if the package of the plays is not installed.
    """
    train, held_out = (
        [scene for play in part for scene in _scenes(play) if scene] for part in plays()
    )
    return train, held_out


def _scenes(play: Play) -> Iterable[list[str]]:
    """The lines of each scene: directions, names of speakers (`ROMEO:`) and what they say."""
    for _, passages in itertools.groupby(play.passages(), lambda passage: passage.scene):
        lines: list[str] = []
        speaker = ""
        for passage in passages:
            # A speech that goes on after a direction is not announced again.
            if passage.kind == "speech" and passage.speaker != speaker:
                speaker = passage.speaker
                lines.append(f"{speaker.upper()}:")
            if passage.kind != "heading":
                lines += filter(None, (line.strip() for line in passage.lines))
        yield lines
