"""Ways to spoil a file: what disks, editors and people do to it."""

import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

Spoiler = Callable[[random.Random, Path, Path], None]


def spoil(source: random.Random, path: Path, other: Path) -> str:
    """Changes a file or folder in one way, and says which.

    Args:
        source: of what is random.
        path: of the file or folder; it is another afterwards.
        other: one of the same name from another run, which may be missing.
    """
    ways = dict(_OF_ALL if path.is_dir() else _OF_ALL | _OF_FILES)
    if path.is_file() and _is_json(path):
        ways |= _OF_JSON
    while True:
        name = source.choice(sorted(ways))
        before = _state(path)
        ways[name](source, path, other)
        if _state(path) != before:
            return name
        # There was nothing to do of this kind, as no digit in a text.
        del ways[name]


def _state(path: Path) -> Any:
    if path.is_symlink() or not path.exists():
        return None
    if path.is_dir():
        return sorted((str(one), one.is_file() and one.read_bytes()) for one in path.rglob("*"))
    return path.read_bytes()


def _is_json(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_bytes()), (dict, list))
    except ValueError:
        return False


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _delete(source: random.Random, path: Path, other: Path) -> None:
    _remove(path)


def _rename(source: random.Random, path: Path, other: Path) -> None:
    path.rename(path.with_name(source.choice([f"{path.name}.old", f"x{path.name}", "9", "0"])))


def _link_nowhere(source: random.Random, path: Path, other: Path) -> None:
    _remove(path)
    path.symlink_to(path.with_name("nowhere"))


def _another(source: random.Random, path: Path, other: Path) -> None:
    if not other.exists():
        return
    _remove(path)
    shutil.copytree(other, path) if other.is_dir() else shutil.copyfile(other, path)


def _swap_kind(source: random.Random, path: Path, other: Path) -> None:
    """A folder becomes a file, a file a folder."""
    was_folder = path.is_dir()
    _remove(path)
    path.write_bytes(b"x") if was_folder else path.mkdir()


def _flip(source: random.Random, path: Path, other: Path) -> None:
    content = bytearray(path.read_bytes())
    if content:
        content[source.randrange(len(content))] ^= 1 << source.randrange(8)
        path.write_bytes(content)


def _flip_many(source: random.Random, path: Path, other: Path) -> None:
    for _ in range(source.randint(2, 30)):
        _flip(source, path, other)


def _truncate(source: random.Random, path: Path, other: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: source.randrange(len(content) or 1)])


def _empty(source: random.Random, path: Path, other: Path) -> None:
    path.write_bytes(b"")


def _garbage(source: random.Random, path: Path, other: Path) -> None:
    path.write_bytes(source.randbytes(source.randint(1, 4096)))


def _zeros(source: random.Random, path: Path, other: Path) -> None:
    path.write_bytes(bytes(len(path.read_bytes())))


def _append(source: random.Random, path: Path, other: Path) -> None:
    path.write_bytes(path.read_bytes() + source.randbytes(source.randint(1, 99)))


def _digit(source: random.Random, path: Path, other: Path) -> None:
    content = bytearray(path.read_bytes())
    places = [match.start() for match in re.finditer(rb"[0-9]", content)]
    if places:
        place = source.choice(places)
        content[place] = ord(str((content[place] - 48 + source.randint(1, 9)) % 10))
        path.write_bytes(content)


def _places(content: Any, path: tuple = ()) -> list[tuple]:
    """All places in JSON, as the keys that lead there."""
    items = content.items() if isinstance(content, dict) else enumerate(content)
    found = []
    for key, value in items:
        found.append((*path, key))
        if isinstance(value, (dict, list)):
            found += _places(value, (*path, key))
    return found


def _edited(edit: Callable[[random.Random, Any, Any], None]) -> Spoiler:
    """Chooses a place in JSON and changes what holds it."""

    def way(source: random.Random, path: Path, other: Path) -> None:
        content = json.loads(path.read_bytes())
        places = _places(content)
        if not places:
            return
        *above, last = source.choice(places)
        holder = content
        for key in above:
            holder = holder[key]
        edit(source, holder, last)
        path.write_text(json.dumps(content), "utf-8")

    return way


def _drop(source: random.Random, holder: Any, key: Any) -> None:
    del holder[key]


def _swap(source: random.Random, holder: Any, key: Any) -> None:
    keys = list(holder) if isinstance(holder, dict) else range(len(holder))
    with_key = source.choice(list(keys))
    holder[key], holder[with_key] = holder[with_key], holder[key]


def _replace(source: random.Random, holder: Any, key: Any) -> None:
    old = holder[key]
    values: list[Any] = [None, "", "x", -1, 0, 1.5, 10**18, float("nan"), True, [], {}, [[]]]
    if isinstance(old, bool):
        values = [not old]
    elif isinstance(old, (int, float)):
        values += [old + 1, old * 2, -old, str(old)] * 3
    elif isinstance(old, str):
        values += [old + "x", old[1:], old.upper()] * 3
    holder[key] = source.choice(values)


def _duplicate(source: random.Random, holder: Any, key: Any) -> None:
    if isinstance(holder, list):
        holder.insert(key, holder[key])
    else:
        holder[f"{key}_2"] = holder[key]


_OF_ALL: dict[str, Spoiler] = {
    "deleted": _delete,
    "renamed": _rename,
    "a link that leads nowhere": _link_nowhere,
    "another run's": _another,
    "folder or file": _swap_kind,
}
_OF_FILES: dict[str, Spoiler] = {
    "bit flipped": _flip,
    "bits flipped": _flip_many,
    "truncated": _truncate,
    "emptied": _empty,
    "garbage": _garbage,
    "zeros": _zeros,
    "appended": _append,
    "digit edited": _digit,
}
_OF_JSON: dict[str, Spoiler] = {
    "value dropped": _edited(_drop),
    "values swapped": _edited(_swap),
    "value replaced": _edited(_replace),
    "entry twice": _edited(_duplicate),
}
