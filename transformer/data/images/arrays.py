"""Labelled images in arrays: NumPy's `.npz`, MNIST's IDX and CIFAR's binary files."""

import dataclasses
import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8

from transformer.data.images.labelled import ArrayImages, ImageParts, first_few
from transformer.data.reading.content import read_content
from transformer.data.reading.npz import npz_array, opened_npz
from transformer.data.reading.text import read_text
from transformer.errors import DataError

# The keys of images and labels in a .npz file: plain, of Keras, and of MedMNIST.
_NPZ_KEYS = (
    {"train": ("images", "labels")},
    {"train": ("x_train", "y_train"), "test": ("x_test", "y_test")},
    {
        "train": ("train_images", "train_labels"),
        "validation": ("val_images", "val_labels"),
        "test": ("test_images", "test_labels"),
    },
)

# For messages about arrays of Python objects.
_SIZES = "Images of several sizes belong into class folders."

_IDX_NAME = re.compile(
    r"(?P<set>.+-)?(?P<part>train|t10k|test)-(?P<what>images|labels)[-.]idx[13]-ubyte(?:\.gz)?"
)

# Side of an image of CIFAR.
_CIFAR_SIDE = 32
# The limit of class numbers; a larger label is not a class.
_MOST_CLASSES = 1 << 20
# The number of images that are converted to grey at once.
_BLOCK = 4096


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayPart:
    """A part of a set whose images are in memory, an `ImagePart`.

    Attributes:
        where: the file or folder, and the part of it.
        images: with 1 or 3 channels.
        labels: places in `names`.
        names: names of the classes.
        notes: messages about the part.
    """

    where: str
    images: UInt8[np.ndarray, "n height width C"]
    labels: Int32[np.ndarray, " n"]
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        """The number of channels of the array."""
        return self.images.shape[-1]

    def conversions(self, channels: int) -> list[str]:
        """A message that all images are converted, if they are."""
        if channels == self.channels:
            return []
        count, kind = f"{len(self.images):,}", "grey" if channels == 1 else "RGB"
        return [f"{self.where}: all {count} images were converted to {kind}."]

    def source(self, chosen: np.ndarray, channels: int) -> ArrayImages:
        """Some of the images; equal channels share their memory."""
        images = self.images
        # All of them need no copy.
        if len(chosen) < len(images):
            images = images[chosen]
        if channels == 3 and self.channels == 1:
            images = np.broadcast_to(images, (*images.shape[:3], 3))
        elif channels == 1 and self.channels == 3:
            images = _grey(images)
        return ArrayImages(images)

    def content(self, chosen: np.ndarray) -> bytes:
        """SHA-256 of the shape and the pixels."""
        digest = hashlib.sha256(str((len(chosen), *self.images.shape[1:])).encode())
        for start in range(0, len(chosen), _BLOCK):
            digest.update(self.images[chosen[start : start + _BLOCK]].tobytes())
        return digest.digest()


def numbered_part(where: str, images: np.ndarray, labels: np.ndarray) -> ArrayPart:
    """A part whose classes have only numbers: they are named "0", "1" and so on.

    Args:
        where: the origin of the arrays, for messages.
        images: uint8 `[n, height, width]` or `[n, height, width, C]`, C 1 or 3.
        labels: whole numbers `[n]` or `[n, 1]`.

    Raises:
        DataError: if the arrays have another shape or type.
    """
    _require_images(images, where)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"{where}: the labels are {labels.dtype} {list(labels.shape)}: expected one whole "
            f"number for each image, [{len(images)}]."
        )
    if len(labels) != len(images):
        raise DataError(
            f"{where}: there are {len(images):,} images and {len(labels):,} labels: expected one "
            f"label for each image."
        )
    if not len(labels):
        raise DataError(f"{where}: there are no images.")
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= _MOST_CLASSES:
        raise DataError(
            f"{where}: a label is {lowest if lowest < 0 else highest}: expected numbers of classes "
            f"from 0."
        )
    labels = labels.astype(np.int32)
    names = tuple(map(str, range(highest + 1)))
    absent = [name for name, count in zip(names, np.bincount(labels), strict=True) if not count]
    notes = ()
    if absent:
        notes = (f"{where}: no image has the label {first_few(absent)}.",)
    if images.ndim == 3:
        images = images[..., None]
    return ArrayPart(where, images, labels, names, notes)


def npz_parts(path: Path) -> ImageParts:
    """The parts of a `.npz` file. Images must be uint8; others are refused.

    With other types it is unclear which number is white: some programs divide by 255, and some
    subtract a mean.

    Raises:
        DataError: if it has none of the known names, or is no such file.
    """
    with opened_npz(path, "images and labels") as arrays:
        there = set(arrays.files)
    for layout in _NPZ_KEYS:
        if any(there.intersection(keys) for keys in layout.values()):
            _require_pairs(path, layout, there)
            return {
                part: functools.partial(_npz_part, path, *keys)
                for part, keys in layout.items()
                if set(keys) <= there
            }
    known = "; or ".join(
        ", ".join(key for keys in layout.values() for key in keys) for layout in _NPZ_KEYS
    )
    raise DataError(
        f"{path} holds {', '.join(sorted(there)) or 'nothing'}: expected arrays of the names "
        f"{known}."
    )


def idx_parts(folder: Path) -> ImageParts:
    """The parts of a folder with files as those of MNIST; empty if there are none.

    Raises:
        DataError: if a file has no partner, or if there are several sets.
    """
    found: dict[str, dict[str, Path]] = {}
    sets = set()
    # A file comes before its compressed form, and is read instead of it.
    for path in sorted(folder.iterdir()):
        match = _IDX_NAME.fullmatch(path.name)
        if match:
            sets.add(match["set"] or "")
            part = "train" if match["part"] == "train" else "test"
            found.setdefault(part, {}).setdefault(match["what"], path)
    if len(sets) > 1:
        raise DataError(
            f"{folder} has the files of {len(sets)} sets of images: put each into a folder of its "
            f"own."
        )
    for files in found.values():
        if len(files) == 1:
            ((what, path),) = files.items()
            rank, other, other_rank = (3, "labels", 1) if what == "images" else (1, "images", 3)
            name = path.name.replace(what, other).replace(f"idx{rank}", f"idx{other_rank}")
            raise DataError(f"{path} has no {other}: expected {name} beside it.")
    return {
        part: functools.partial(_idx_part, files["images"], files["labels"])
        for part, files in found.items()
    }


def cifar_parts(folder: Path) -> ImageParts:
    """The parts of a folder with the binary version of CIFAR-10 or CIFAR-100; empty if none.

    Raises:
        DataError: if files are missing, or are those of the version for Python.
    """
    there = {path.name for path in folder.iterdir()}
    numbers = sorted(
        int(match[1]) for name in there if (match := re.fullmatch(r"data_batch_(\d+)\.bin", name))
    )
    missing = sorted(set(range(1, max(numbers, default=0) + 1)) - set(numbers))
    if missing:
        raise DataError(f"{folder / f'data_batch_{missing[0]}.bin'} is missing.")
    ten = [f"data_batch_{number}.bin" for number in numbers]
    if ten or "test_batch.bin" in there:
        files = {"train": ten, "test": ["test_batch.bin"]}
        names, num_labels = "batches.meta.txt", 1
    elif {"train.bin", "test.bin"} & there:
        files = {"train": ["train.bin"], "test": ["test.bin"]}
        names, num_labels = "fine_label_names.txt", 2
    elif "data_batch_1" in there or {"train", "test", "meta"} <= there:
        raise DataError(
            f"{folder} has CIFAR's version for Python, which are pickles: reading one can run any "
            f"program. Download the binary version instead."
        )
    else:
        return {}
    return {
        part: functools.partial(
            _cifar_part, [folder / name for name in batches], folder / names, num_labels
        )
        for part, batches in files.items()
        if batches and there.issuperset(batches)
    }


def _require_pairs(path: Path, layout: Mapping[str, tuple[str, str]], there: set[str]) -> None:
    """Refuses images without labels, and the other way round."""
    for keys in layout.values():
        absent = [key for key in keys if key not in there]
        if len(absent) == 1:
            (present,) = set(keys) - set(absent)
            raise DataError(f"{path} has {present!r} without {absent[0]!r}: add it.")


def _npz_part(path: Path, images: str, labels: str) -> ArrayPart:
    where = f"{path} ({images}, {labels})"
    arrays = (npz_array(path, key, "images and labels", _SIZES) for key in (images, labels))
    return numbered_part(where, *arrays)


def _require_images(images: np.ndarray, where: str) -> None:
    """Refuses arrays that are not images, and says how to convert them."""
    has = f"{where}: the images are {images.dtype} {list(images.shape)}"
    if images.dtype != np.uint8:
        hint = (
            '(images * 255).round().astype("uint8"), if white is 1'
            if np.issubdtype(images.dtype, np.floating)
            else 'images.astype("uint8"), if white is 255'
        )
        raise DataError(
            f"{has}: expected uint8 from 0 (black) to 255 (white). Convert them first, with {hint}."
        )
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3)):
        hint = ""
        if images.ndim == 4 and images.shape[1] in (1, 3):
            hint = " Channels come last: use images.transpose(0, 2, 3, 1)."
        raise DataError(
            f"{has}: expected [n, height, width] or [n, height, width, C] with C 1 or 3.{hint}"
        )
    if 0 in images.shape[1:]:
        raise DataError(f"{has}: they have no pixels.")


def _idx_part(images: Path, labels: Path) -> ArrayPart:
    return numbered_part(str(images), _idx_array(images, 3), _idx_array(labels, 1))


def _idx_array(path: Path, rank: int) -> np.ndarray:
    """The bytes of an IDX file, in its shape.

    The file begins with two zero bytes, one for the type, 8 for bytes, and one for the rank; then
    the sizes follow, as big-endian 32-bit numbers, and the values.
    """
    content = read_content(path, "an IDX file")
    start = 4 + 4 * rank
    magic, expected = content[:4], bytes([0, 0, 8, rank])
    if magic != expected or len(content) < start:
        raise DataError(
            f"{path} is no IDX file of {'images' if rank == 3 else 'labels'}: it begins with "
            f"{magic.hex(' ') or 'nothing'}, expected {expected.hex(' ')} and {rank} sizes."
        )
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", rank, offset=4))
    wanted = start + int(np.prod(shape, dtype=object))
    if len(content) != wanted:
        raise DataError(
            f"{path} has {len(content):,} bytes and should have {wanted:,} for "
            f"{' x '.join(map(str, shape))} values: download it again."
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _cifar_part(batches: Sequence[Path], names_file: Path, num_labels: int) -> ArrayPart:
    """One part of CIFAR (Krizhevsky 2009).

    An image is its labels, the last of which counts, then its red, green and blue plane.

    Args:
        batches: the files.
        names_file: with a class a line; without it, classes are named by their numbers.
        num_labels: bytes before each image.
    """
    pixels = 3 * _CIFAR_SIDE**2
    rows = []
    for path in batches:
        content = read_content(path, "a file of CIFAR")
        size = num_labels + pixels
        if not content or len(content) % size:
            raise DataError(
                f"{path} has {len(content):,} bytes: expected a multiple of {size:,}, so many for "
                f"each image. Download it again."
            )
        rows.append(np.frombuffer(content, np.uint8).reshape(-1, size))
    table = np.concatenate(rows)
    images = table[:, num_labels:].reshape(-1, 3, _CIFAR_SIDE, _CIFAR_SIDE)
    images = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    where = str(batches[0] if len(batches) == 1 else batches[0].parent)
    part = numbered_part(where, images, table[:, num_labels - 1])
    if not names_file.exists():
        return part
    names = tuple(line.strip() for line in read_text(names_file).split("\n") if line.strip())
    if len(part.names) > len(names):
        raise DataError(
            f"{names_file} has {len(names)} names of classes, and the images have labels "
            f"up to {len(part.names) - 1}: download both again."
        )
    return dataclasses.replace(part, names=names, notes=())


def _grey(images: UInt8[np.ndarray, "n h w 3"]) -> UInt8[np.ndarray, "n h w 1"]:
    """Grey with the weights of ITU-R BT.601, rounded as Pillow does it."""
    weights = np.array([19595, 38470, 7471], np.uint32)
    grey = np.empty((*images.shape[:3], 1), np.uint8)
    for start in range(0, len(images), _BLOCK):
        block = images[start : start + _BLOCK].astype(np.uint32)
        grey[start : start + _BLOCK, ..., 0] = (block @ weights + (1 << 15)) >> 16
    return grey
