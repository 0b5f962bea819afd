"""Labelled images for training and evaluation, from folders of files or from arrays."""

from collections.abc import Sequence
from pathlib import Path

from transformer.data.images.arrays import cifar_parts, idx_parts, npz_parts
from transformer.data.images.decoding import FileImages, read_image_file
from transformer.data.images.folders import FolderPart, folder_parts
from transformer.data.images.labelled import (
    ArrayImages,
    ImagePart,
    ImageParts,
    ImageSource,
    LabelledImages,
    draw_held_out,
    first_few,
    take,
)
from transformer.errors import ConfigError, DataError

__all__ = [
    "ArrayImages",
    "FileImages",
    "ImageSource",
    "LabelledImages",
    "read_evaluation_images",
    "read_image_file",
    "read_images",
]

# The supported formats, for messages.
_READABLE = (
    "a folder with a folder of images for each class; one with such folders in train and in val or "
    "test; a .npz file; or a folder with the files of MNIST (train-images-idx3-ubyte, ...) or of "
    "the binary version of CIFAR-10 (data_batch_1.bin, ...) or CIFAR-100 (train.bin, ...)"
)


def read_images(
    path: str,
    *,
    channels: int | None = None,
    broken: str = "refuse",
    validation_path: str = "",
    validation_fraction: float = 0.1,
) -> tuple[LabelledImages, LabelledImages]:
    """Images for training and for validation.

    Files stay where they are and are decoded when they are asked for; arrays are read whole. What
    is read:

    - `PATH/CLASS/*.png`, also jpg, jpeg, bmp, gif, webp, tif, tiff, ppm and pgm, in any depth below
      the folder of the class. What is hidden is not read. Images may differ in size.
    - `PATH/train/CLASS/...` with `PATH/val/CLASS/...` (or `valid`, `validation`, `test`). Of a
      validation and a test part, the first is for validation; the other is not read.
    - a `.npz` file with `images` and `labels`; with `x_train`, `y_train`, `x_test` and `y_test`, as
      Keras has them; or with `train_images`, `train_labels`, `val_images`, ... as MedMNIST has
      them. Images are uint8 `[n, height, width]` or `[n, height, width, C]`; other types are
      refused.
    - MNIST's IDX files, plain or compressed with gzip, and those of sets made like it.
    - CIFAR's binary version, of 100 classes the fine ones.

    Classes without names are named "0", "1" and so on.

    Args:
        path: the path of the file or folder.
        channels: C, 1 for grey or 3 for RGB; None for 3 unless all images are grey.
        broken: what to do with files that cannot be decoded: "refuse" all images or "skip" these.
        validation_path: the path of other images for validation, in any of these forms. If it has
            parts, those for validation are taken, else those for test, else those for training.
        validation_fraction: the share of images that is held out if there are none for
            validation; the same of every class, as nearly as possible, and always the same ones.

    Raises:
        DataError: if something is missing or damaged, or classes do not fit.
        ConfigError: if an argument is invalid.
        MissingDependencyError: if images are in files and Pillow is not installed.
    """
    _require_arguments(channels, broken)
    parts = _parts(path, broken)
    if "train" not in parts:
        raise DataError(f"{path} has images for {' and '.join(parts)}, but none for training.")
    train = parts["train"]()
    held_out = None
    if validation_path:
        held_out = _first(_parts(validation_path, broken), "validation", "test", "train")
    elif len(parts) > 1:
        held_out = _first(parts, "validation", "test")
    if held_out is None:
        return _drawn(train, channels or train.channels, validation_fraction)
    _require_same_classes(train, held_out)
    channels = channels or max(train.channels, held_out.channels)
    return (
        take(train, train.names, channels, notes=_notes(train, channels)),
        take(held_out, train.names, channels, notes=_notes(held_out, channels)),
    )


def read_evaluation_images(
    path: str, names: Sequence[str], *, channels: int, broken: str
) -> LabelledImages:
    """Images to evaluate a trained model on.

    Args:
        path: as in `read_images`. If it has parts, those for test are taken, else those for
            validation, else those for training.
        names: the names of the model's classes. Those of the images are found among them by name,
            and need not be all of them.
        channels: C, 1 or 3.
        broken: as in `read_images`.

    Raises:
        DataError: if something is missing or damaged, or a class is not among the names.
        ConfigError: if an argument is invalid.
        MissingDependencyError: if images are in files and Pillow is not installed.
    """
    _require_arguments(channels, broken)
    part = _first(_parts(path, broken), "test", "validation", "train")
    return take(part, names, channels, notes=_notes(part, channels))


def _require_arguments(channels: int | None, broken: str) -> None:
    if channels not in (None, 1, 3):
        raise ConfigError(f"config.task.channels is {channels}: 1 for grey images or 3 for RGB.")
    if broken not in ("refuse", "skip"):
        raise ConfigError(
            f"config.task.broken is {broken!r}: 'refuse' to read images of which some are broken, "
            f"or 'skip' these."
        )


def _parts(path: str, broken: str) -> ImageParts:
    """The parts of a file or folder in any known form.

    Raises:
        DataError: if it has none of the known forms.
    """
    place = Path(path)
    if not place.exists():
        raise DataError(f"{path} does not exist: give {_READABLE}.")
    if not place.is_dir():
        if place.suffix.lower() != ".npz":
            raise DataError(f"{path} has the ending {place.suffix!r}: give {_READABLE}.")
        return npz_parts(place)
    try:
        parts = idx_parts(place) or cifar_parts(place) or folder_parts(place, broken)
    except PermissionError:
        raise DataError(f"{path} cannot be read: permission denied.") from None
    if not parts:
        raise DataError(f"{path} has no images: give {_READABLE}.")
    return parts


def _first(parts: ImageParts, *order: str) -> ImagePart:
    """The first part that exists, in this order."""
    return next(parts[name] for name in order if name in parts)()


def _notes(part: ImagePart, channels: int) -> list[str]:
    return [*part.notes, *part.conversions(channels)]


def _drawn(
    part: ImagePart, channels: int, validation_fraction: float
) -> tuple[LabelledImages, LabelledImages]:
    """A part of which some images are held out."""
    if not 0.0 < validation_fraction < 1.0:
        raise ConfigError(
            f"config.task.validation_fraction is {validation_fraction}: above 0 and below 1, as "
            f"{part.where} has no images for validation of its own."
        )
    count = max(1, round(len(part.labels) * validation_fraction))
    train, validation = draw_held_out(part.labels, count)
    if not len(validation):
        raise DataError(
            f"{part.where} has one image of each class, so that none can be held out for "
            f"validation: add images."
        )
    names = part.names
    return (
        take(part, names, channels, train, notes=_notes(part, channels)),
        take(part, names, channels, validation),
    )


def _require_same_classes(train: ImagePart, held_out: ImagePart) -> None:
    """Refuses folders of different classes. In arrays, classes may have no image.

    Raises:
        DataError: naming the classes that only one side has.
    """
    if not (isinstance(train, FolderPart) and isinstance(held_out, FolderPart)):
        return
    sides = []
    for part, other in ((train, held_out), (held_out, train)):
        own = sorted(set(part.names) - set(other.names))
        if own:
            sides.append(f"only {part.where} has {first_few(own, 10)}")
    if sides:
        raise DataError(
            f"the classes for training and for validation differ: {'; '.join(sides)}. Each needs "
            f"a folder with the same name on both sides."
        )
