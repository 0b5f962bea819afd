"""Labelled images in a folder for each class, with or without folders for parts of the set."""

import dataclasses
import functools
import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from transformer.data.images.checks import check_images
from transformer.data.images.decoding import ENDINGS, GREY_KINDS, FileImages
from transformer.data.images.labelled import ImageParts, first_few
from transformer.errors import DataError

# The names of folders of parts, in upper or lower case.
_PART_NAMES = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}


@dataclasses.dataclass(frozen=True, eq=False)
class FolderPart:
    """A part of a set whose images are files, an `ImagePart`.

    Attributes:
        where: the folder of the class folders.
        files: the path of each image below it.
        kinds: what each image is, in words.
        hashes: SHA-256 of each file, hexadecimal.
        labels: places in `names`.
        names: the names of the class folders.
        notes: what was left out.
    """

    where: str
    files: list[str]
    kinds: list[str]
    hashes: list[str]
    labels: Int32[np.ndarray, " n"]
    names: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def channels(self) -> int:
        """1 if all images are grey, else 3."""
        return 1 if GREY_KINDS.issuperset(self.kinds) else 3

    def conversions(self, channels: int) -> list[str]:
        """How many images are converted, of which kinds, and the first of them."""
        wanted = "grey" if channels == 1 else "RGB"
        others = [
            (file, kind)
            for file, kind in zip(self.files, self.kinds, strict=True)
            if kind != wanted
        ]
        if not others:
            return []
        counts = Counter(kind for _, kind in others).most_common()
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in counts)
        named = first_few([file for file, _ in others])
        return [
            f"{self.where}: {len(others):,} of {len(self.files):,} images were converted to "
            f"{wanted}: {kinds} ({named})."
        ]

    def source(self, chosen: np.ndarray, channels: int) -> FileImages:
        """Some of the images, decoded when they are asked for."""
        return FileImages(self.where, [self.files[index] for index in chosen], channels)

    def content(self, chosen: np.ndarray) -> bytes:
        """SHA-256 of the paths and contents."""
        digest = hashlib.sha256()
        for index in chosen:
            # Paths never contain NUL.
            digest.update(os.fsencode(self.files[index]) + b"\0" + self.hashes[index].encode())
        return digest.digest()


def folder_parts(folder: Path, broken: str) -> ImageParts:
    """The parts of a folder; none if there are no class folders and no images in it.

    Args:
        folder: a folder of class folders, or of `train` and `val`, `valid`, `validation` or `test`,
            which have class folders.
        broken: "refuse" or "skip" files that cannot be decoded.

    Raises:
        DataError: if it is not clear what its folders are.
    """
    folders = _sub_folders(folder)
    if not folders:
        if any(_is_image(path.name) for path in folder.iterdir()):
            raise DataError(
                f"{folder} has images, but no folder for each class: put the images of a class "
                f"into a folder with the name of the class."
            )
        return {}
    parts: dict[str, Path] = {}
    classes = []
    for path in folders:
        part = _PART_NAMES.get(path.name.lower())
        if part is None:
            classes.append(path.name)
        elif part in parts:
            raise DataError(f"{parts[part]} and {path} are both for {part}: keep one of them.")
        else:
            parts[part] = path
    if parts and classes:
        # A class may be called "train", too: its images lie directly in its folder.
        if not any(map(_sub_folders, parts.values())):
            parts = {}
        else:
            named = ", ".join(path.name for path in parts.values())
            raise DataError(
                f"{folder} has folders for parts of a set ({named}) and others beside them "
                f"({first_few(classes)}): is it a folder for each class, or for each part? Move "
                f"the others out, or rename a class."
            )
    parts = parts or {"train": folder}
    return {
        part: functools.partial(_read_part, path, broken=broken) for part, path in parts.items()
    }


def _read_part(folder: Path, broken: str) -> FolderPart:
    """A folder of class folders.

    Raises:
        DataError: if there are none, one is without images, or a file is broken.
    """
    names, files, labels, others = _listed(folder)
    checked = check_images(folder, files)
    bad = [place for place, one in enumerate(checked) if one.problem]
    if bad and broken == "refuse":
        more = f" So it is with {len(bad) - 1:,} more of {len(files):,} images." if bad[1:] else ""
        raise DataError(
            f"{folder / files[bad[0]]} cannot be used as an image: {checked[bad[0]].problem}{more} "
            f"Mend or remove what is broken, or leave it out with broken=skip."
        )
    notes = []
    if others:
        notes.append(f"{folder}: {len(others):,} other files were not read: {first_few(others)}.")
    if bad:
        named = first_few([files[place] for place in bad])
        notes.append(
            f"{folder}: {len(bad):,} of {len(files):,} images are broken and were left out: "
            f"{named}."
        )
    good = [place for place, one in enumerate(checked) if not one.problem]
    kept = np.array([labels[place] for place in good], np.int32)
    lost = [names[label] for label in np.setdiff1d(np.arange(len(names)), kept)]
    if lost:
        raise DataError(f"{folder}: all images of the class {first_few(lost)} are broken.")
    return FolderPart(
        str(folder),
        [files[place] for place in good],
        [checked[place].kind for place in good],
        [checked[place].content for place in good],
        kept,
        names,
        tuple(notes),
    )


class _Listed(NamedTuple):
    """What is in a folder of class folders.

    Attributes:
        names: the names of the classes.
        files: the path of each image below the folder.
        labels: the labels of the images.
        others: files that are not images, or in no class.
    """

    names: tuple[str, ...]
    files: list[str]
    labels: list[int]
    others: list[str]


def _listed(folder: Path) -> _Listed:
    """The files of a folder of class folders.

    Raises:
        DataError: if there are no class folders, or one is without images.
    """
    names = tuple(path.name for path in _sub_folders(folder))
    if not names:
        raise DataError(f"{folder} has no folder for each class, named as the class.")
    files, labels = [], []
    others = sorted(
        path.name
        for path in folder.iterdir()
        if path.name not in names and not path.name.startswith(".")
    )
    for label, name in enumerate(names):
        for path in _files(folder / name):
            file = path.relative_to(folder).as_posix()
            if _is_image(path.name):
                files.append(file)
                labels.append(label)
            else:
                others.append(file)
    used = set(labels)
    empty = [name for label, name in enumerate(names) if label not in used]
    if empty:
        there = f" Of its files, {first_few(others)} are not read." if others else ""
        raise DataError(
            f"{folder} has no images of the class {first_few(empty)}: expected files that end in "
            f"{', '.join(sorted(ENDINGS))}, or no such folder.{there}"
        )
    return _Listed(names, files, labels, others)


def _sub_folders(folder: Path) -> list[Path]:
    """The sub-folders that are not hidden, by name."""
    try:
        return sorted(
            path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
        )
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}.") from None


def _files(folder: Path) -> Iterator[Path]:
    """All files in any depth, by name, without hidden ones."""
    # Links are followed, but not in cycles.
    seen = set()

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}.") from None

    for parent, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        here = os.path.realpath(parent)
        if here in seen:
            folders.clear()
            continue
        seen.add(here)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(files) if not name.startswith("."))


def _is_image(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in ENDINGS
