"""Keys of side files, each in turn set to another legal value.

There are two good outcomes: what we make of the folder is what its publisher's library makes of it,
or the import names the key, as it refuses it or as it reports what was not used.
"""

import json
import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from transformer.errors import UserError
from transformer.runs.importing import Imported, read_run


class Subject(NamedTuple):
    """A published folder and what is made of it.

    Attributes:
        folder: made by the publisher's library.
        theirs: a folder to arrays by name: what the publisher's library makes of it.
        ours: what was read of a folder to arrays by the same names.
    """

    folder: Path
    theirs: Callable[[Path], dict[str, Any]]
    ours: Callable[[Imported], dict[str, Any]]


# The value of a key that is left out.
DELETED = object()
# Of all cases a part, always the same, is tried in the usual run of the tests; all of them with
# `ALL_CASES=1 python -m pytest tests/interop -k keys`.
PART = 8


def is_tried(case: str) -> bool:
    """Whether a case, by its name, is among those that are tried."""
    return bool(os.environ.get("ALL_CASES")) or zlib.crc32(case.encode()) % PART == 0


def set_key(folder: Path, name: str, key: str, value: Any) -> None:
    """Sets a key of one side file, or leaves it out; dots lead into objects and lists.

    The file is made if need be.
    """
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    content = json.loads(path.read_text("utf-8")) if path.exists() else {}
    inner, *parts = content, *key.split(".")
    for part in parts[:-1]:
        inner = inner[int(part)] if isinstance(inner, list) else inner.setdefault(part, {})
    if value is DELETED:
        inner.pop(parts[-1], None)
    else:
        inner[parts[-1]] = value
    path.write_text(json.dumps(content), "utf-8")


def outcome(subject: Subject, work: Path, name: str, key: str, value: Any) -> str:
    """What becomes of a key with another value.

    Args:
        subject: which folder.
        work: where a changed copy of it is made.
        name: of the side file.
        key: of the side file.
        value: a legal one, or `DELETED`.

    Returns:
        `refused` or `reported`, both of which name the key, or `equal`.

    Raises:
        AssertionError: for everything else.
    """
    shutil.copytree(subject.folder, work, dirs_exist_ok=True)
    set_key(work, name, key, value)
    try:
        found = read_run(work)
    except UserError as error:
        last = key.rsplit(".", maxsplit=1)[-1]
        assert last in str(error), f"{key} is refused without its name: {error}"
        return "refused"
    used = found.published.files.used().get(name)
    if value is not DELETED:
        assert used is not None, f"{name} is not reported"
    if used is not None and any(
        key == told or key.startswith(f"{told}.") or told == "*" for told in used.unused
    ):
        return "reported"
    ours, theirs = subject.ours(found), subject.theirs(work)
    for what, expected in theirs.items():
        np.testing.assert_allclose(
            ours[what], expected, atol=4e-5, rtol=4e-5, err_msg=f"{name} {key}: {what}"
        )
    return "equal"
