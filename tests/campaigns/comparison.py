"""What two folders of runs differ in, from the bits of the state to the pictures."""

import json
import struct
from pathlib import Path

import numpy as np
from matplotlib.image import imread

from tests.runs import TIMING, assert_same_run
from transformer.training.checkpoints import Checkpoints

# A stop saves a checkpoint of its own, which may stay beside the newest and the best.
_SPECIAL = ("checkpoints", "tensorboard", "metrics.jsonl")


def differences(workdir: Path, reference: Path) -> list[str]:
    """In words, one for each thing that is not as in the other folder; empty if all is.

    Args:
        workdir: of a run that has ended.
        reference: of a run of the same command that nobody killed.
    """
    found = _other_files(workdir, reference) + _other_checkpoints(workdir, reference)
    try:
        assert_same_run(workdir, reference)
    except AssertionError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        found.append(f"metrics or the last checkpoint: {' '.join(lines[:6])[:500]}")
    ours, theirs = scalars(workdir), scalars(reference)
    for tag in sorted(ours.keys() | theirs.keys()):
        if ours.get(tag) != theirs.get(tag):
            found.append(f"TensorBoard has {ours.get(tag)} of {tag}, not {theirs.get(tag)}"[:500])
    return found


def _files(folder: Path) -> dict[str, Path]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    named = {str(path.relative_to(folder)): path for path in paths}
    return {name: path for name, path in named.items() if name.split("/")[0] not in _SPECIAL}


def _other_files(workdir: Path, reference: Path) -> list[str]:
    ours, theirs = _files(workdir), _files(reference)
    found = [f"{name} is missing" for name in sorted(theirs.keys() - ours.keys())]
    found += [f"{name} is left over" for name in sorted(ours.keys() - theirs.keys())]
    for name in sorted(ours.keys() & theirs.keys()):
        if not _same_content(ours[name], theirs[name]):
            found.append(f"{name} has another content")
    return found


def _same_content(path: Path, other: Path) -> bool:
    if path.read_bytes() == other.read_bytes():
        return True
    try:
        return path.suffix == ".png" and np.array_equal(imread(path), imread(other))
    except (OSError, SyntaxError, ValueError):
        return False


def _other_checkpoints(workdir: Path, reference: Path) -> list[str]:
    names = {path.name for path in (workdir / "checkpoints").iterdir()}
    found = [f"checkpoints/{name} is left over" for name in names if not name.isdecimal()]
    kept, best = [], []
    for folder in (workdir, reference):
        with Checkpoints(folder, read_only=True) as checkpoints:
            kept.append(checkpoints.steps())
            best.append(checkpoints.best_step())
    if best[0] != best[1]:
        found.append(f"the best checkpoint is {best[0]}, not {best[1]}")
    # After a stop between two saves there is one that the other run has not.
    planned = [step for step in kept[0] if step in kept[1]]
    if kept[0] != kept[1] and (len(kept[0]) != len(kept[1]) or len(planned) < len(kept[1]) - 1):
        found.append(f"the checkpoints are {kept[0]}, not {kept[1]}")
    for step in planned:
        prints = [_fingerprints(folder, step) for folder in (workdir, reference)]
        if prints[0] != prints[1]:
            found.append(f"the checkpoint of step {step} has other bits")
    return found


def _fingerprints(folder: Path, step: int) -> dict:
    path = folder / "checkpoints" / str(step) / "metadata" / "metadata"
    return json.loads(path.read_text("utf-8"))["arrays"]


def scalars(workdir: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a run, without what depends on the clock.

    A file that begins at a step hides what earlier ones have of that step and later ones. A file
    that was cut by a kill counts up to the cut.
    """
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted((workdir / "tensorboard").iterdir(), key=lambda path: path.name):
        for record in _records(path.read_bytes()):
            event = Event.FromString(record)
            if event.HasField("session_log") and event.session_log.status == SessionLog.START:
                found = {
                    tag: [(step, value) for step, value in points if step < event.step]
                    for tag, points in found.items()
                }
            for value in event.summary.value:
                if value.tag.rpartition("/")[2] not in TIMING:
                    points, new = found.setdefault(value.tag, []), (event.step, value.simple_value)
                    # What a run killed at its end writes again is one point on the screen.
                    if points[-1:] != [new]:
                        points.append(new)
    return {tag: points for tag, points in found.items() if points}


def _records(content: bytes) -> list[bytes]:
    """The records of a TFRecord file: length, its checksum, the record, its checksum."""
    found, place = [], 0
    while place + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, place)
        if place + 16 + length > len(content):
            break
        found.append(content[place + 12 : place + 12 + length])
        place += 16 + length
    return found
