"""Images with labels, from any storage, and how some are held out for validation."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, Int32, UInt8

from transformer.data.labels.class_names import class_places, distinct_names
from transformer.errors import DataError
from transformer.fields import unknown_name


@runtime_checkable
class ImageSource(Protocol):
    """Images by index, with equal numbers of channels but perhaps different sizes."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, index: int, /) -> UInt8[np.ndarray, "height width C"]:
        """One of them. Threads may ask at the same time."""
        ...

    def name(self, index: int) -> str:
        """The name of an image in messages."""
        ...

    def some(self, chosen: Int[np.ndarray, " m"]) -> "ImageSource":
        """Some of the images, by index."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayImages:
    """Images of one size in one array.

    Attributes:
        array: in memory or memory-mapped. Where grey is to be RGB, the three channels may be one
            and the same memory.
    """

    array: UInt8[np.ndarray, "n height width C"]

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: int, /) -> UInt8[np.ndarray, "height width C"]:
        return self.array[index]

    def name(self, index: int) -> str:
        """Its number."""
        return f"image {index}"

    def some(self, chosen: Int[np.ndarray, " m"]) -> "ArrayImages":
        """Some of the images, by index; channels that share memory still share it."""
        shared = self.array.strides[-1] == 0
        images = self.array[..., :1][chosen] if shared else self.array[chosen]
        return ArrayImages(np.broadcast_to(images, (len(chosen), *self.array.shape[1:])))


@dataclasses.dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images and the class of each.

    Attributes:
        source: the images.
        labels: places in `names`.
        names: the names of the classes.
        digest: SHA-256 of everything above: of pixels that are in memory, or else of the bytes of
            the files. Names, sizes and times of files do not guarantee equal content; and since
            each file is read once to check that it can be decoded, hashing it costs little more.
        notes: what was left out or converted, for people.
    """

    source: ImageSource
    labels: Int32[np.ndarray, " n"]
    names: tuple[str, ...]
    digest: str
    notes: tuple[str, ...]

    def part(self, fraction: float, seed: int) -> "LabelledImages":
        """A fraction of the images, as nearly as possible the same for every class.

        Args:
            fraction: above 0, below 1.
            seed: the seed of the draw.
        """
        count = max(1, round(len(self.labels) * (1.0 - fraction)))
        chosen, _ = draw_held_out(self.labels, count, seed)
        digest = hashlib.sha256(self.digest.encode() + chosen.astype("<i8").tobytes())
        return dataclasses.replace(
            self,
            source=self.source.some(chosen),
            labels=self.labels[chosen],
            digest=digest.hexdigest(),
        )


@runtime_checkable
class ImagePart(Protocol):
    """One part of a set as it was found, such as the training part.

    Attributes:
        where: the file or folder, for messages.
        labels: places in `names`.
        names: the names of the classes, as this part has them.
        notes: what was left out.
    """

    @property
    def where(self) -> str: ...  # noqa: D102

    @property
    def labels(self) -> Int32[np.ndarray, " n"]: ...  # noqa: D102

    @property
    def names(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def notes(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def channels(self) -> int:
        """1 if all images are grey, else 3."""
        ...

    def conversions(self, channels: int) -> list[str]:
        """Messages about conversions to this number of channels."""
        ...

    def source(self, chosen: np.ndarray, channels: int) -> ImageSource:
        """Some of the images, by index, with this number of channels."""
        ...

    def content(self, chosen: np.ndarray) -> bytes:
        """A hash of some of the images, by number."""
        ...


# The parts of a set by their purpose: "train", "validation" and "test", as far as there are such.
# None is read before it is asked for.
ImageParts = dict[str, Callable[[], ImagePart]]


def take(
    part: ImagePart,
    names: Sequence[str],
    channels: int,
    chosen: np.ndarray | None = None,
    notes: Sequence[str] = (),
) -> LabelledImages:
    """Images of a part, with its labels translated to other places of the same names.

    Args:
        part: a part of a set.
        names: the names of all classes.
        channels: C, 1 or 3.
        chosen: numbers of the images; all by default.
        notes: what else there is to say.

    Raises:
        DataError: if an image has a class that is not in `names`, or is there more than once.
    """
    if chosen is None:
        chosen = np.arange(len(part.labels))
    labels = _translation(part, names)[part.labels[chosen]]
    digest = hashlib.sha256(json.dumps([list(names), channels]).encode())
    digest.update(labels.tobytes())
    digest.update(part.content(chosen))
    return LabelledImages(
        part.source(chosen, channels), labels, tuple(names), digest.hexdigest(), tuple(notes)
    )


def _translation(part: ImagePart, names: Sequence[str]) -> Int32[np.ndarray, " c"]:
    """The place among names of each class of a part; see `take`."""
    if tuple(part.names) == tuple(names):
        return np.arange(len(names), dtype=np.int32)
    places = class_places(names)
    # Names without images are harmless.
    translation = np.zeros(len(part.names), np.int32)
    for label in np.unique(part.labels):
        name = part.names[label]
        if name not in places:
            raise DataError(
                unknown_name(f"{part.where}: the set of {len(names)} known classes", name, names)
            )
        if len(places[name]) > 1:
            known = " or ".join(repr(distinct_names(names)[place]) for place in places[name])
            raise DataError(
                f"{part.where}: {len(places[name])} of the known classes are called {name!r}: say "
                f"which is meant by calling it {known}."
            )
        translation[label] = places[name][0]
    return translation


def draw_held_out(
    labels: Int32[np.ndarray, " n"], count: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of examples for training and for validation, both ascending.

    Every class gives its share, rounded down; the remaining examples come from the classes with the
    largest rounding losses. No class gives its last example.

    Args:
        labels: class of each example.
        count: the number of the examples to hold out.
        seed: the seed of the draw.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, 0]))
    classes, sizes = np.unique(labels, return_counts=True)
    # In integers, so that equal shares are equal on all machines.
    shares, lost = np.divmod(sizes * count, len(labels))
    shares = np.minimum(shares, sizes - 1)
    # Classes with equal losses are in random order.
    order = generator.permutation(len(classes))
    order = order[np.argsort(-lost[order], kind="stable")]
    missing = count - int(shares.sum())
    while missing > 0 and (shares < sizes - 1).any():
        able = order[shares[order] < sizes[order] - 1][:missing]
        shares[able] += 1
        missing -= len(able)
    held_out = np.zeros(len(labels), bool)
    for label, share in zip(classes, shares, strict=True):
        held_out[generator.permutation(np.flatnonzero(labels == label))[:share]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def first_few(names: Sequence[str], most: int = 3) -> str:
    """Some names in a row, for people."""
    shown = ", ".join(names[:most])
    return f"{shown}, ..." if len(names) > most else shown
