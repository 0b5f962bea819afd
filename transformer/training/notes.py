"""The notes of a checkpoint, which protect its metadata and the other files of its run.

Fingerprints protect arrays; the notes protect everything else that affects results. They hold the
position in the data, the validation loss, the config and a digest of each file that the task wrote
(tokenizer, labels, ...), and a seal (a hash) over all of it. If a digit of the notes changes, the
checkpoint counts as damaged; if a digit of `config.json` or `labels.json` changes, that file no
longer belongs to the checkpoint. This guards against damage and mistakes, not against forgery.

Checkpoints saved before seals existed are accepted without one.
"""

import contextlib
import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from transformer.errors import CheckpointError, UserError, WorkdirError
from transformer.sections import flattened
from transformer.training.options import CHANGEABLE
from transformer.training.sections import saved_config, with_optional_sections
from transformer.types import Facts, Json

# The folder of checkpoints inside a run folder.
FOLDER = "checkpoints"
CONFIG_FILE = "config.json"

_SEAL, _CONFIG, _FILES = "seal", "config", "files"
# Metadata keys of checkpoints from before seals existed; with any other key the seal was lost.
_OF_BEFORE = {"data_fingerprint", "fingerprints", "validation_loss"}
_ADVICE = (
    "put back what it was, or the checkpoints that belong to it. A run that was trained here makes "
    "it again: delete the file, and give the same command of scripts/train.py once more."
)


class Notes(NamedTuple):
    """The notes of one checkpoint.

    Attributes:
        step: the step after which it was saved.
        data: position in the data.
        metadata: the metadata given to `Checkpoints.save`, and what it added.
    """

    step: int
    data: Facts
    metadata: Facts

    @property
    def whose(self) -> str:
        """How messages name the checkpoint: by its step and its path in the run folder."""
        return f"the checkpoint of step {self.step} ({FOLDER}/{self.step})"


def described(config: ConfigDict, folder: Path) -> Json:
    """The part of a checkpoint's metadata that describes its run.

    Args:
        config: the resolved config of the run.
        folder: holds the files that the task wrote, and no others.
    """
    content = json.loads(json.dumps(config.to_dict()))
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return {_CONFIG: content, _FILES: {path.name: _digest(path) for path in files}}


def sealed(step: int, data: Facts, metadata: Facts) -> Json:
    """The metadata with a seal over all notes of the checkpoint."""
    return {**metadata, _SEAL: _seal(step, data, metadata)}


def read_notes(checkpoint: Path) -> Notes:
    """Reads the notes of a checkpoint, given its folder, whose name is the step.

    Raises:
        CheckpointError: if they cannot be read or differ from what was saved.
    """
    try:
        data, metadata = (
            json.loads((checkpoint / name / "metadata").read_text("utf-8"))
            for name in ("data", "metadata")
        )
    except OSError as error:
        raise CheckpointError(
            f"{checkpoint} is damaged: its notes cannot be read ({error.strerror}: "
            f"{error.filename})."
        ) from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{checkpoint} is damaged: its notes are no JSON: {error}.") from None
    if not isinstance(data, dict) or not isinstance(metadata, dict):
        raise CheckpointError(f"{checkpoint} is damaged: its notes hold something else.")
    notes = Notes(int(checkpoint.name), data, metadata)
    if _SEAL in metadata and _seal(*notes) != metadata[_SEAL]:
        raise CheckpointError(
            f"{checkpoint} is damaged: its notes (metadata or data, or the name of the folder) are "
            f"not what was saved."
        )
    if _SEAL not in metadata and not metadata.keys() <= _OF_BEFORE:
        raise CheckpointError(f"{checkpoint} is damaged: its metadata have lost their seal.")
    return notes


def newest_notes(workdir: Path) -> Notes | None:
    """The newest undamaged notes of a run's checkpoints; None if there are none."""
    try:
        names = [path.name for path in (workdir / FOLDER).iterdir()]
    except OSError:
        return None
    for step in sorted((int(name) for name in names if is_step(name)), reverse=True):
        try:
            return read_notes(workdir / FOLDER / str(step))
        except CheckpointError:
            # Restoring it reports this.
            continue
    return None


def is_step(name: str) -> bool:
    """Whether a folder with this name holds a checkpoint."""
    return name.isascii() and name.isdecimal() and len(name) < 20 and str(int(name)) == name


def of_one_run(notes: Notes, other: Notes) -> bool:
    """Whether two checkpoints describe the same run."""
    return all(notes.metadata.get(key) == other.metadata.get(key) for key in (_CONFIG, _FILES))


def noted_config(notes: Notes) -> ConfigDict | None:
    """The config of the run stored in a checkpoint; None if it stores none."""
    content = notes.metadata.get(_CONFIG)
    return None if content is None else saved_config(content)


def require_config(config: ConfigDict, notes: Notes, where: str | Path) -> None:
    """Refuses a config that differs from the one a checkpoint was saved with.

    Args:
        config: the current config of the run.
        notes: the notes of the checkpoint.
        where: where the config comes from, for messages.

    Raises:
        WorkdirError: lists all relevant differences.
    """
    saved = noted_config(notes)
    if saved is None:
        return
    old, new = _fixed(saved), _fixed(config)
    differences = [
        f"  config.{key}: {old.get(key, '(absent)')!r} in the checkpoint, "
        f"{new.get(key, '(absent)')!r} now"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    if differences:
        raise WorkdirError(
            f"{where} is not what {notes.whose} was saved with:\n"
            + "\n".join(differences)
            + f"\nTo use it, {_ADVICE}"
        )


def require_files(workdir: Path, notes: Notes, *, may_lack: bool = False) -> None:
    """Refuses files in a run folder that differ from those a checkpoint was saved with.

    Args:
        workdir: the run folder.
        notes: the notes of the checkpoint.
        may_lack: whether files may be missing because they are made again.

    Raises:
        WorkdirError: names the first of them.
    """
    for name, digest in notes.metadata.get(_FILES, {}).items():
        path = workdir / name
        if not path.is_file():
            if may_lack and not path.is_symlink() and not path.exists():
                continue
            raise WorkdirError(f"{path} is missing, but {notes.whose} was saved with it: {_ADVICE}")
        if _digest(path) != digest:
            raise WorkdirError(f"{path} is not what {notes.whose} was saved with: {_ADVICE}")


def require_made_again(workdir: Path, notes: Notes, made: Facts) -> None:
    """Refuses to replace a missing file of a run by a different one.

    Args:
        workdir: the run folder.
        notes: the notes of a checkpoint.
        made: the result of `described` for the files that would be written now.

    Raises:
        WorkdirError: names the first of them.
    """
    for name, digest in notes.metadata.get(_FILES, {}).items():
        if not (workdir / name).exists() and made[_FILES].get(name) != digest:
            raise WorkdirError(
                f"{workdir / name} is missing, and cannot be made again as {notes.whose} was "
                f"saved with: put back what it was."
            )


def require_same_run(metadata: Facts, workdir: Path, notes: Notes | None) -> None:
    """Refuses to resume a run with other data or files than it began with.

    Args:
        metadata: what checkpoints of this run store; see `opened.metadata_of`.
        workdir: the run folder.
        notes: the notes of a checkpoint; None if there is none.

    Raises:
        WorkdirError: if the data have changed, or a missing file would be made differently.
    """
    if notes is not None:
        require_made_again(workdir, notes, metadata)
        require_same_data(metadata, notes)


def require_same_data(metadata: Facts, notes: Notes) -> None:
    """Refuses data that a checkpoint was not trained on.

    Raises:
        WorkdirError: if the data have changed.
    """
    if notes.metadata.get("data_fingerprint") != metadata["data_fingerprint"]:
        raise WorkdirError(
            "the data have changed since this run began, so it cannot go on as if they had not: "
            "restore them, or start again in a new --workdir."
        )


def _fixed(config: ConfigDict) -> Json:
    """The fields that may not change; where a run began from no longer matters."""
    try:
        flat = flattened(with_optional_sections(config))
    except UserError:
        # The name does not exist; the message will show the difference.
        flat = flattened(config)
    free = {f"train.{name}" for name in CHANGEABLE}
    return {
        key: value for key, value in flat.items() if key not in free and not key.startswith("init.")
    }


def _digest(path: Path) -> str:
    """Digest of a file's content; for JSON, independent of its formatting."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WorkdirError(f"{path} cannot be read: {error.strerror}.") from None
    if path.suffix == ".json":
        with contextlib.suppress(ValueError, RecursionError):
            content = json.dumps(json.loads(content), sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()[:32]


def _seal(step: int, data: Facts, metadata: Facts) -> str:
    content = {key: value for key, value in metadata.items() if key != _SEAL}
    return hashlib.sha256(_canonical([step, data, content])).hexdigest()


def _canonical(content: Json | list) -> bytes:
    """Canonical JSON of a value, the same before saving and after reading it back."""
    return json.dumps(json.loads(json.dumps(content)), sort_keys=True).encode()
