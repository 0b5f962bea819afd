"""The config in a run folder, and checks that the other files belong to the checkpoints."""

import difflib
import json
import os
import shlex
from pathlib import Path

from ml_collections import ConfigDict

from transformer.checks import require_writable_folder
from transformer.data.reading.text import read_text
from transformer.errors import WorkdirError
from transformer.files import write_json
from transformer.sections import flattened
from transformer.training.holding import is_empty
from transformer.training.notes import (
    CONFIG_FILE,
    FOLDER,
    newest_notes,
    noted_config,
    require_config,
    require_files,
)
from transformer.training.options import CHANGEABLE
from transformer.training.sections import (
    FORMAT,
    SECTIONS,
    owner,
    saved_config,
    with_optional_sections,
)

# These fields have no effect once a run has begun.
_OF_THE_BEGINNING = ("init.fresh", "init.new")


def read_config(workdir: Path) -> ConfigDict:
    """The resolved config of a run, with defaults for fields added since it was written.

    Raises:
        WorkdirError: if the folder is not a run folder.
    """
    path = workdir / CONFIG_FILE
    if not path.exists():
        raise WorkdirError(
            f"{workdir} is not the folder of a run: it has no {CONFIG_FILE}. {_beside(workdir)}"
        )
    try:
        content = json.loads(read_text(path, may_be_empty=True))
        for name in SECTIONS:
            if not isinstance(content[name], dict):
                raise TypeError(f"{name} is no section")
            if not isinstance(content[name].get("name", ""), str):
                raise TypeError(f"the name of {name} is no text")
        return saved_config(content)
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise WorkdirError(
            f"{path} is damaged, not JSON with the sections of a config: {error}. Put back what it "
            f"was; or delete it, and give the same command of scripts/train.py once more, which "
            f"makes it again."
        ) from None


def _beside(workdir: Path) -> str:
    """What to do about a folder that is no run: the runs beside it, or how one is made."""
    runs = [path.parent.name for path in workdir.parent.glob(f"*/{CONFIG_FILE}")]
    if runs:
        near = difflib.get_close_matches(workdir.name, sorted(runs), n=5, cutoff=0.0)
        return f"Runs beside it: {', '.join(near)}."
    folder = shlex.quote(f"--workdir={workdir}")
    return f"This trains one: python scripts/train.py --config=configs/gpt_char.py {folder}"


def read_run(workdir: Path) -> ConfigDict:
    """Like `read_config`, with all sections, and compared with the newest checkpoint.

    Raises:
        WorkdirError: if the folder is not a run folder, or its config or another file is not what
            its newest checkpoint was saved with.
    """
    config = read_config(workdir)
    notes = newest_notes(workdir)
    if notes is not None:
        require_config(config, notes, workdir / CONFIG_FILE)
        require_files(workdir, notes)
    return with_optional_sections(config)


def write_config(config: ConfigDict, workdir: Path) -> None:
    """Writes the resolved config for `read_config`."""
    content = {"format": FORMAT, **config.to_dict()}
    write_json(workdir / CONFIG_FILE, content, sort_keys=True)


def adopt_workdir(config: ConfigDict, workdir: Path) -> ConfigDict:
    """The config for a folder that may already hold a run.

    Sizes that the data decided are taken from that run.

    Raises:
        WorkdirError: if the folder holds something else, or a run whose config differs in fields
            that may not change; all differences are shown.
    """
    require_writable_folder(workdir)
    config = with_optional_sections(config)
    if is_empty(workdir):
        return config
    notes = newest_notes(workdir)
    saved: ConfigDict | None = None
    if notes is not None and not os.path.lexists(workdir / CONFIG_FILE):
        saved = noted_config(notes)
    if saved is None:
        saved = read_config(workdir)
    if notes is not None:
        require_config(saved, notes, workdir / CONFIG_FILE)
        # Files that were not made from the data cannot be made again.
        require_files(workdir, notes, may_lack=not config.init.workdir)
    saved = with_optional_sections(saved)
    if config.task.name == saved.task.name:
        for key in owner("task", config.task.name).DIMENSIONS:
            if config.model[key] is None:
                config.model[key] = saved.model[key]
    old, new = flattened(saved), flattened(config)
    free = {f"train.{name}" for name in CHANGEABLE}
    free |= set(_OF_THE_BEGINNING) if (workdir / FOLDER).is_dir() else set()
    differences = [
        f"  config.{key}: {old.get(key, '(absent)')!r} in the workdir, "
        f"{new.get(key, '(absent)')!r} now"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and key not in free
    ]
    if differences:
        raise WorkdirError(
            f"{workdir} holds a run with another config:\n" + "\n".join(differences) + "\n"
            "Use another --workdir, or the config it was started with."
        )
    return config
